"""What can a person ask of nightshift? The command line: each command is one step of the night, or the whole of it."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_upkeep as upkeep
from flows.cli_options import DEFAULT_CONFIG, ConfigPath, Overrides, load, written
from flows.cli_study import study
from storage.errors import NightshiftError

app = typer.Typer(
    name="nightshift",
    help="An LLM that works at night so that nothing waits for it by day: it writes what it can tell about users and"
    " items, the text is encoded and stored with the moment it was true, and conventional models train on it.\n\n"
    "One TOML file describes a run: start from deploy/configs/demo.toml. Every command does only what is not done yet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TELEMETRY_OFF = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ENVIRONMENT = TELEMETRY_OFF | {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "storage,llm_features,ctr_models,flows",
    "PREFECT_CLIENT_MAX_RETRIES": "8",
}
"""Nobody is told that this runs, the steps' own log lines are shown, and a run outlives 8 minutes without a server
(2 + 4 + ... + 256 s between tries). Set before any library is imported, unless the person set them otherwise."""


@app.command()
def ingest(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data set first, where it is not there.")
    ] = False,
) -> None:
    """Read the data, check every row, set bad rows aside with their reason, publish the tables."""
    _as_writer("ingest", config, overrides, lambda steps, run: steps.ingest(run, download=download))


@app.command()
def plan(config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = []) -> None:  # noqa: B006
    """Dry run: which prompts are new, cached or skipped, how many tokens, how long, what cost. Writes nothing."""
    from flows import steps, summary

    run = load(config, overrides)
    summary.show_plans([steps.plan(run, name) for name in run.features])


@app.command()
def generate(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    feature: Annotated[list[str], typer.Option("--feature", "-f", help="Only this feature set.")] = [],  # noqa: B006
) -> None:
    """Write the text that is missing, judge it, encode it, publish the feature sets."""

    def work(steps: Any, run: Any) -> dict:
        return {"features": [steps.generate(run, name) for name in feature or run.features]}

    _as_writer("generate", config, overrides, work)


@app.command()
def train(config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = []) -> None:  # noqa: B006
    """Train every model of the run, with and without the features, on what was known at each label's time."""
    from flows.learning import train as learn
    from flows.retrieving import train_retrievers

    _as_writer("train", config, overrides, lambda _, run: learn(run) | train_retrievers(run))


@app.command()
def evaluate(config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = []) -> None:  # noqa: B006
    """Score the newest trained models on the test rows again and compare them, with intervals."""
    from flows import learning, summary

    summary.show_models(learning.evaluate(load(config, overrides)))


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(help="A user id; an unknown one is answered from popularity.")],
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    model: Annotated[str | None, typer.Option("--model", help="Which trained model ranks.")] = None,
) -> None:
    """Recommend items to one user from stored vectors: no LLM is loaded."""
    from flows import summary
    from flows.recommending import recommend_one

    summary.show_recommendations(recommend_one(load(config, overrides), user, k=k, model=model))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SQL statement over the views; try 'SHOW TABLES'.")],
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Ask the catalog, read-only; a run that writes meanwhile is not disturbed."""
    from flows import summary
    from storage.catalog import query as ask

    summary.show_frame(ask(load(config, overrides).store.root, query), output)


@app.command()
def nightly(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
    date: Annotated[
        str | None, typer.Option("--date", help="The logical date, YYYY-MM-DD: it is done once. Without it: now.")
    ] = None,
) -> None:
    """The whole night as a Prefect flow: ingest, generate, encode, publish, train, evaluate, recommend."""
    from flows import summary
    from flows.nightly import nightly as night

    load(config, overrides)  # a wrong configuration is said before Prefect starts
    summary.show_night(night(config=str(config), overrides=overrides, logical_date=date), str(config))


@app.command()
def serve(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Serve the scheduled flows from this process (needs a Prefect server; without a work pool)."""
    from flows.serve import serve_all

    run = load(config, overrides)
    serve_all(str(config), list(overrides), cron=run.schedule.cron, timezone=run.schedule.timezone)


for command in upkeep.COMMANDS:
    app.command()(command)
app.add_typer(study, name="study")


def _as_writer(job: str, config: Path, overrides: list[str], work: Any) -> None:
    """Run one step as the only writer, rebuild the catalog, show what it did."""
    from flows import steps, summary

    run = load(config, overrides)
    summary.show_step(job, written(run, job, lambda: work(steps, run)))


def main() -> None:
    """Entry point of the command `nightshift`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault(
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"
    )  # 17 s seen on an idle machine of 20
    try:
        app()
    except NightshiftError as error:
        sys.exit(f"nightshift: {error}")


if __name__ == "__main__":
    main()
