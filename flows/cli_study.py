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
