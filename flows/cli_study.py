"""What can a person ask to be studied? Each command is one study of the run, from where it was left."""

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
) -> None:
    """Sequential models x arms x seeds of the section [sequential], from where the study was left."""
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
    typer.echo(
        f"{done['parts']} parts, {done['computed']} of them computed now, in {done['seconds']} s: {done['results']}"
    )
    typer.echo(f"The page: {done['page']}")


@study.command()
def latency(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Times of one user's request, cold and warm: models without text, with stored vectors, and an LLM asked directly.

    Every call measures anew. The section [latency] says how often and for how many candidates; the models must be
    trained with and without the features. The table says what was not measured, and why.
    """
    from flows import steps
    from flows.studies.latency.study import latency as run_study
    from storage.lock import WriterLock

    run = load(config, overrides)
    with WriterLock(run.store.root, purpose="study"):
        done = run_study(run)
        steps.publish_catalog(run)
    for row in done["results"]:
        asked = f"{row['model'] or 'an LLM'} {row['arm']}, {row['cache']}, {row['candidates']:,} candidates"
        if row["not_measured"]:
            typer.echo(f"{asked}: not measured, {row['not_measured']}")
        else:
            times = f"p50 {row['p50_ms']:,.2f} ms, p99 {row['p99_ms']:,.2f} ms"
            typer.echo(f"{asked}: {times} of {row['requests']:,} requests")
    typer.echo(f"The page: {done['page']}")
