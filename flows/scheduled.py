"""Which night is this run, and what does the scheduler show of it? What the three Prefect flows share."""

import logging
import time
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from flows.summary import as_markdown
from storage.errors import NightshiftError

logger = logging.getLogger(__name__)


def logical_date(given: str | None, timezone: str) -> str:
    """The date a run belongs to: what was asked for, else the day it was scheduled for, in the schedule's time zone.

    A run that starts late, or is retried after midnight, still belongs to the night it was meant for. A run that no
    deployment started (the command line) belongs to this second: a person who asks twice wants it twice.
    """
    if given is not None:
        return given
    if deployment.id is None:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return flow_run.scheduled_start_time.astimezone(ZoneInfo(timezone)).date().isoformat()


def plain_errors() -> None:
    """Log what nightshift says on purpose as one line: a traceback helps nobody whose configuration is wrong."""
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if _without_traceback not in logger.filters:
            logger.addFilter(_without_traceback)


def finished(job: str, date: str, summary: Mapping[str, Any]) -> Any:
    """What a flow returns: a Completed state that holds the summary and says where nothing was to do.

    The summary is also shown as artifacts: Markdown, and one table each of feature sets, models and retrievers; where
    the server is gone just then they are missing, and the store's own record of the night says the same.
    """
    try:
        create_markdown_artifact(as_markdown(summary), key=job, description=f"{job} of {date}")
        for name in ("features", "models", "retrievers"):
            if rows := [_flat(row) for row in summary.get(name, [])]:
                create_table_artifact(rows, key=f"{job}-{name}", description=f"{name} of {date}")
    except httpx.HTTPError as error:  # an artifact has a connection of its own, which does not wait for the server
        logger.warning("the summary of %s is not shown as an artifact: %s", date, error)
    done_before = summary.get("already_done")
    message = f"{date} was done before: nothing to do" if done_before else f"{job} of {date} is done"
    return Completed(message=message, data=dict(summary))


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], NightshiftError):
        record.exc_info = None
    return True


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested summaries as one row of a table: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
