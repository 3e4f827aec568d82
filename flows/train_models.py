"""When are models trained? The Prefect flow `train-models`: train, recommend, publish, from what is stored already."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import learning, recommending, retrieving, scheduled
from flows.config import load_config
from flows.generate_features import publish_catalog
from flows.night import run_night

JOB = "train-models"


@task(cache_policy=NO_CACHE, persist_result=False)
def train(config: str, overrides: list[str]) -> dict:
    """Train every model of the run, with and without the features."""
    return learning.train(load_config(config, overrides))


@task(cache_policy=NO_CACHE, persist_result=False)
def train_retrievers(config: str, overrides: list[str]) -> dict:
    """Train the sequential models that find candidates."""
    return retrieving.train_retrievers(load_config(config, overrides))


@task(cache_policy=NO_CACHE, persist_result=False)
def recommend(config: str, overrides: list[str]) -> dict:
    """Store the night's recommendations."""
    return recommending.recommend_all(load_config(config, overrides))


@flow(name=JOB, persist_result=False)
def train_models(config: str, overrides: list[str] | None = None, logical_date: str | None = None) -> dict:
    """Train on the newest published feature sets and store recommendations, once for a logical date.

    Parameters and result as in `generate_features`.
    """
    scheduled.plain_errors()
    overrides = overrides or []
    run = load_config(config, overrides)
    date = scheduled.logical_date(logical_date, run.schedule.timezone)

    def work() -> dict:
        trained = train(config, overrides) | train_retrievers(config, overrides)
        return {"root": str(run.store.root), **trained, **recommend(config, overrides)}

    return scheduled.finished(
        JOB, date, run_night(run.store.root, JOB, date, work, then=lambda: publish_catalog(config, overrides))
    )
