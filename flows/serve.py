"""How does one machine run its own nights? The three deployments served from this process, without a work pool."""

import os
from collections.abc import Sequence

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType

from flows.generate_features import generate_features
from flows.nightly import nightly
from flows.train_models import train_models
from storage.errors import ConfigError


def deployments(config: str, overrides: Sequence[str], *, cron: str, timezone: str) -> list[RunnerDeployment]:
    """What is served: `nightly/nightly` on its schedule, and its two halves for a run by hand.

    Without a concurrency limit of Prefect's: why is said in deploy/prefect.yaml.
    """
    parameters = {"config": config, "overrides": list(overrides)}
    return [
        RunnerDeployment.from_flow(
            flow,
            name="nightly",
            parameters=parameters,
            schedule=Cron(cron, timezone=timezone) if flow is nightly else None,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow in (nightly, generate_features, train_models)
    ]


def serve_all(config: str, overrides: Sequence[str], *, cron: str, timezone: str) -> None:
    """Serve until stopped. A stop does not pause the schedule, so the next start takes up the next night.

    Raises ConfigError where the cron line is wrong, or where no Prefect server is named: a schedule needs one that
    outlives this process.
    """
    if get_current_settings().api.url is None:
        raise ConfigError(
            "nightshift serve needs a Prefect server: run `prefect server start`, then set"
            " PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "storage,llm_features,ctr_models,flows")  # for its runs
    try:
        served = deployments(config, overrides, cron=cron, timezone=timezone)
    except ValueError as error:
        raise ConfigError(f"schedule.cron: {error}") from error
    serve(*served, pause_on_shutdown=False, limit=1)
