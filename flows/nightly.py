"""When does the whole night run? The Prefect flow `nightly`: generate-features, then train-models, as one run."""

from prefect import flow

from flows import scheduled
from flows.config import load_config
from flows.generate_features import generate_features
from flows.train_models import train_models

JOB = "nightly"


@flow(name=JOB, persist_result=False)
def nightly(config: str, overrides: list[str] | None = None, logical_date: str | None = None) -> dict:
    """Write the text of the night, then train on it: both halves belong to the same logical date.

    A half that is already done for that date is not done again. Parameters and result as in `generate_features`.
    """
    scheduled.plain_errors()
    overrides = overrides or []
    date = scheduled.logical_date(logical_date, load_config(config, overrides).schedule.timezone)
    features = generate_features(config, overrides, date)
    models = train_models(config, overrides, date)
    both = {**features, **models, "already_done": features["already_done"] and models["already_done"]}
    return scheduled.finished(JOB, date, both)
