"""What can a person ask about a data root that is there already? To be checked, mended, cleared, and made to forget."""

from typing import Annotated, Any

import typer

from flows.cli_options import DEFAULT_CONFIG, ConfigPath, Overrides, load

SIGNIFICANT = 0.01
"""Chance of so many exact rows below which a data set counts as known by heart."""


def verify(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    users: Annotated[int, typer.Option("--users", min=0, help="Users whose joined rows are recomputed.")] = 500,
) -> None:
    """Read back every file against its manifest, recompute the point-in-time join of random users in plain Python."""
    from flows.verify import verify as read_back

    found = read_back(load(config, overrides), users=users)
    _complain(found["problems"])
    typer.echo(
        f"{found['files']} files read back, {found['rows_checked']} joined rows of {found['users']} users recomputed: "
        f"{len(found['problems'])} problems"
    )
    raise typer.Exit(code=1 if found["problems"] else 0)


def audit(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    memorisation: Annotated[
        str | None,
        typer.Option("--memorisation", help="Instead: does this engine of [engines] know the data's rows by heart?"),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of each kind it is asked to complete.")] = 200,
) -> None:
    """Look for leaks: texts, joins, splits and models that know what they could not have known."""
    if memorisation is not None:
        _ask_for_rows(load(config, overrides), memorisation, rows)
        return
    from flows.audit import audit as search

    found = search(load(config, overrides))
    _complain(found["leaks"])
    for name in found["not_audited"]:
        typer.echo(f"run {name!r} was trained on other data than the newest and is not audited")
    typer.echo(f"{len(found['runs'])} runs and all feature sets audited: {len(found['leaks'])} leaks")
    raise typer.Exit(code=1 if found["leaks"] else 0)


def repair(config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = []) -> None:  # noqa: B006
    """Set aside what is damaged, rebuild what can be rebuilt without asking a model, say what cannot."""
    from flows.upkeep import repair as mend

    said = mend(load(config, overrides))
    typer.echo("\n".join(said) if said else "nothing is damaged")


def vacuum(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    grace: Annotated[float, typer.Option("--grace-days", min=0, help="How long the superseded is kept.")] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no manifest, run or reader names any more, after a grace period."""
    from flows.upkeep import vacuum as clear

    removed = clear(load(config, overrides), grace_days=grace, dry_run=dry_run)
    for one in removed:
        typer.echo(f"{one.path}: {one.why} ({one.bytes:,} bytes)")
    typer.echo(f"{sum(one.bytes for one in removed):,} bytes {'would go' if dry_run else 'removed'}")


def forget(
    user: Annotated[str, typer.Option("--user", help="The user id to erase.")],
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Erase one person from everything stored, for good, and search every byte afterwards."""
    from flows.upkeep import forget as erase

    done = erase(load(config, overrides), user)
    _complain(done["traces"])
    typer.echo(
        f"{done['feature_rows']} feature rows, {done['texts']} texts and prompts, {done['recommendations']} "
        f"recommendations and {done['vocabulary_values']} values of models are gone; {done['files_searched']} files "
        f"searched: {len(done['traces'])} speak of this person"
    )
    typer.echo("Models keep what they learned from this person together with others until they are trained again.")
    typer.echo("The source files are not nightshift's: what they hold of this person is left out from now on.")
    raise typer.Exit(code=1 if done["traces"] else 0)


def _ask_for_rows(run: Any, engine: str, rows: int) -> None:
    from flows.audit import memorised

    for found in memorised(run, engine, rows=rows):
        known = "known by heart" if found["p"] < SIGNIFICANT else "not known"
        typer.echo(
            f"{found['rows']}: {found['exact']} of {found['asked']} rows completed exactly, {found['chance']:.1f} by "
            f"chance (p = {found['p']:.3f}): {known}"
        )


def _complain(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(problem, err=True)


COMMANDS = (verify, audit, repair, vacuum, forget)
"""What `flows.cli` adds to its own."""
