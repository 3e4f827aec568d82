"""When is text written? The Prefect flow `generate-features`: ingest, write and encode what is missing, publish.

Tasks take the path of the run's TOML and names, never tables: the store holds those. Prefect's result cache is off,
because the store is content-addressed and already does nothing twice.
"""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows import scheduled, steps
from flows.config import load_config
from flows.night import run_night
from storage.errors import GenerationError

JOB = "generate-features"


def _engine_failed(task: Task, task_run: TaskRun, state: State) -> bool:
    """Only an engine may do better on a second try; a wrong configuration or a damaged store stays wrong."""
    return isinstance(state.data, GenerationError)


@task(cache_policy=NO_CACHE, persist_result=False)
def ingest(config: str, overrides: list[str]) -> dict:
    """Read and check the source, publish the tables."""
    return steps.ingest(load_config(config, overrides))


@task(
    task_run_name="generate {feature}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=60,
    retry_condition_fn=_engine_failed,
)
def generate(config: str, overrides: list[str], feature: str) -> dict:
    """Write, judge and encode the missing text of one feature set; a retry sends only what is not stored yet."""
    return steps.generate(load_config(config, overrides), feature)


@task(cache_policy=NO_CACHE, persist_result=False)
def publish_catalog(config: str, overrides: list[str]) -> dict:
    """Swap in a catalog over the newest versions."""
    return steps.publish_catalog(load_config(config, overrides))


@flow(name=JOB, persist_result=False)
def generate_features(config: str, overrides: list[str] | None = None, logical_date: str | None = None) -> dict:
    """Ingest, then write, encode and publish every feature set of a run, once for a logical date.

    config: path of the run's TOML; overrides: `section.key=value`; logical_date: YYYY-MM-DD, by default the day the
    run was scheduled for. Called directly it returns the summary. Fails where another run is writing.
    """
    scheduled.plain_errors()
    overrides = overrides or []
    run = load_config(config, overrides)
    date = scheduled.logical_date(logical_date, run.schedule.timezone)

    def work() -> dict:
        summary = {"root": str(run.store.root), "ingest": ingest(config, overrides)}
        summary["features"] = [generate(config, overrides, name) for name in run.features]
        return summary

    return scheduled.finished(
        JOB, date, run_night(run.store.root, JOB, date, work, then=lambda: publish_catalog(config, overrides))
    )
