"""What can a person ask to be studied? Each command is one study of the run, from where it was left."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flows.cli_options import DEFAULT_CONFIG, ConfigPath, Overrides, load

study = typer.Typer(help="Compare recommenders under one protocol, and say which claims hold.", no_args_is_help=True)


@study.callback()
def _study() -> None:
    pass


@study.command()
def sequential(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many parts there are, and how long the rest would take.")
    ] = False,
) -> None:
    """Sequential models x arms x seeds of the section [sequential], from where the study was left."""
    if dry_run:
        from flows.studies.sequential.estimate import estimate

        _show_estimate(estimate(load(config, overrides)))
        return
    from flows import steps
    from flows.studies.sequential.study import sequential as run_study
    from flows.studies.sequential.tables import claim_line
    from storage.lock import WriterLock

    run = load(config, overrides)
    with WriterLock(run.store.root, purpose="study"):
        done = run_study(run)
        steps.publish_catalog(run)
    for claim in done["claims"]:
        typer.echo(claim_line(claim))
    chosen = f"by {done['trials']} trials each, on validation" if done["trials"] else "as configured, not tuned"
    typer.echo(f"options {chosen}, in every arm")
    typer.echo(
        f"{done['parts']} parts, {done['computed']} of them computed now, in {done['seconds']} s: {done['results']}"
    )


def _show_estimate(said: Mapping[str, Any]) -> None:
    typer.echo(f"{said['parts']} parts, {said['parts_stored']} of them stored")
    if said["trials"]:
        typer.echo(f"{said['trials']} trials of options, {said['trials_stored']} of them stored")
    for model, seconds in said["seconds_per_epoch"].items():
        typer.echo(f"  {model}: {seconds:,.1f} s an epoch, evaluation included")
    likely, most = said["minutes"]
    typer.echo(f"at most {most:,.0f} minutes, if no model stops early")
    if likely is not None:
        typer.echo(f"about {likely:,.0f} minutes, with as many epochs as stored parts needed")
    typer.echo("nothing was written")
