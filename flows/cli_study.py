"""What can a person ask to be studied? Each command is one study of the run, from where it was left."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flows.cli_options import DEFAULT_CONFIG, ConfigPath, Overrides, load, written

study = typer.Typer(help="Compare recommenders under one protocol, and say which claims hold.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many fits are left and how long they may take.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes that fit; one a core by default.")]


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
    from flows.studies.sequential.study import sequential as run_study
    from flows.studies.sequential.tables import claim_line

    run = load(config, overrides)
    done = written(run, "study", lambda: run_study(run))
    for claim in done["claims"]:
        typer.echo(claim_line(claim))
    chosen = f"by {done['trials']} trials each, on validation" if done["trials"] else "as configured, not tuned"
    typer.echo(f"options {chosen}, in every arm")
    _say_done(done)


@study.command("sample_efficiency")
def sample_efficiency(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    workers: Workers = None,
) -> None:
    """How many labelled rows does stored text save? Models x arms x fractions of the training rows x seeds.

    The section [sample_efficiency] says what is compared. It needs one arm, and has the rest by default:

    \b
        [sample_efficiency]
        fractions = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0]  # each part of the next, the same rows for every arm
        seeds = [0, 1, 2]
        margin = 0.001                                 # how much AUC counts as nothing
        [sample_efficiency.arms.text]                  # beside the arm "base", which has no text
        features = ["item_knowledge"]
        [sample_efficiency.arms.permuted]              # its controls: without both, claims are "uncontrolled"
        features = ["item_knowledge"]
        vectors = "permuted"
        [sample_efficiency.arms.random]
        features = ["item_knowledge"]
        vectors = "random"
        [sample_efficiency.trials.decayed]             # tried everywhere, chosen by validation; none: "untuned"
        options = { embedding_l2 = 1e-2 }

    What is fitted is kept at once: the same command goes on where it was stopped, and does nothing where nothing
    changed. Ends with a line for each claim: holds, does not hold, or not enough evidence. In SQL:
    study_sample_efficiency, study_sample_efficiency_claims and study_sample_efficiency_calibration.
    """
    _ctr("sample_efficiency", load(config, overrides), dry_run=dry_run, workers=workers)


@study.command()
def ablation(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    workers: Workers = None,
) -> None:
    """Which text, encoding or adaptor is worth most? Many arms of the section [ablation], each against each other.

    The section is written like [sample_efficiency] (see its --help), on all rows by default. An arm may have an adaptor
    and samples of its own:

    \b
        [ablation.arms.mlp]
        features = ["item_knowledge"]
        text = { kind = "mlp" }                        # instead of [train.text]
        samples = { text_dimensions = 32 }             # what differs from [train.samples]

    The arm that is named first is claimed to beat the later ones.
    """
    _ctr("ablation", load(config, overrides), dry_run=dry_run, workers=workers)


def _ctr(name: str, run: Any, *, dry_run: bool, workers: int | None) -> None:
    from flows.studies.ctr import study as ctr
    from flows.studies.ctr.claims import claim_line, headlines, saving_line

    if dry_run:
        _say_planned(ctr.dry_run(run, name, processes=workers))
        return
    done = written(run, "study", lambda: ctr.study(run, name, processes=workers))
    for claim in headlines(done["claims"]):
        typer.echo(claim_line(claim))
    for saving in done["savings"]:
        typer.echo(saving_line(saving))
    for said in dict.fromkeys([*done["warnings"], done["tuning"], done["guard"]]):
        typer.echo(said)
    _say_done(done)


def _say_planned(plan: Mapping[str, Any]) -> None:
    for said in dict.fromkeys([*plan["warnings"], plan["tuning"], plan["guard"]]):
        typer.echo(said)
    typer.echo(
        f"{plan['fits']:,} fits, {plan['stored']:,} of them stored; {plan['row_epochs']:,} rows x epochs at most"
    )
    left = f"about {plan['minutes']:,} minutes" if plan["minutes"] is not None else "nobody knows how many minutes yet"
    typer.echo(f"{left} in {plan['processes']} processes")


def _say_done(done: Mapping[str, Any]) -> None:
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
    from flows.studies.latency.study import latency as run_study

    run = load(config, overrides)
    done = written(run, "study", lambda: run_study(run))
    for row in done["results"]:
        asked = f"{row['model'] or 'an LLM'} {row['arm']}, {row['cache']}, {row['candidates']:,} candidates"
        if row["not_measured"]:
            typer.echo(f"{asked}: not measured, {row['not_measured']}")
        else:
            times = f"p50 {row['p50_ms']:,.2f} ms, p99 {row['p99_ms']:,.2f} ms"
            typer.echo(f"{asked}: {times} of {row['requests']:,} requests")
    typer.echo(f"The page: {done['page']}")


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
