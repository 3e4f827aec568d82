"""Which nights ran, and how did they end? One small file a night and job: the store's own record, whoever scheduled it.

A job (`generate-features`, `train-models`) of one logical date runs once: the second run finds the record and does
nothing. A night that failed is recorded as failed; one that was killed is recorded as died by the next that writes,
whatever its date. A run of that date does the work again, and the caches make it cheap.
"""

import calendar
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from storage.disk import read_sealed, write_sealed
from storage.errors import ConfigError, StoreError
from storage.lock import WriterLock

_PURPOSE = re.compile(r"([a-z-]+) of ([0-9T:.+Z-]+)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ][0-9:.+Z-]+)?")


def run_night(
    root: Path, job: str, logical_date: str | None, work: Callable[[], dict], *, then: Callable[[], object]
) -> dict:
    """Do `work` as the only writer of `root`, once for a logical date, record its summary, and only `then` (a catalog
    that shows the night just recorded).

    logical_date: the day the schedule meant (YYYY-MM-DD), or None for a run by hand, which always works.
    Returns the summary, with `already_done` true where the date was done before and nothing ran.
    Raises StoreError naming the holder where another run is writing, ConfigError where the date is not one.
    """
    date = logical_date or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if not _DATE.fullmatch(date):
        raise ConfigError(f"logical date {logical_date!r} must read YYYY-MM-DD")
    record = root / "nights" / f"{date.replace(':', '')}.{job}.json"
    with WriterLock(root, purpose=f"{job} of {date}") as lock:
        if lock.died is not None:
            _record_death(root, lock.died)
        if record.is_file():
            before = read_sealed(record)
            if before["status"] == "completed":
                return {**before["summary"], "already_done": True}
        started = time.time()

        def write(status: str, summary: dict) -> None:
            night = {"logical_date": date, "job": job, "status": status, "summary": summary}
            night |= {"started_at": int(started), "seconds": round(time.time() - started, 2)}
            write_sealed(record, night)

        try:
            summary = work()
        except Exception as error:
            with contextlib.suppress(StoreError):  # a full disk must not hide what went wrong first
                write("failed", {"error": str(error)})
            raise
        write("completed", summary)
        then()
    return {**summary, "already_done": False}


def _record_death(root: Path, holder: Mapping[str, Any]) -> None:
    """A night whose process died could not say so itself; whoever comes next does, unless it was done before."""
    found = _PURPOSE.fullmatch(str(holder.get("purpose")))
    if found is None:
        return
    job, date = found.groups()
    record = root / "nights" / f"{date.replace(':', '')}.{job}.json"
    if not record.is_file():
        error = f"process {holder.get('pid')} on {holder.get('host')} died"
        night = {"logical_date": date, "job": job, "status": "died", "summary": {"error": error}}
        started = calendar.timegm(time.strptime(holder["started"], "%Y-%m-%dT%H:%M:%SZ"))
        seconds = round(max(0.0, float(holder["heartbeat"]) - started), 2)
        write_sealed(record, night | {"started_at": started, "seconds": seconds})


def nights(root: Path) -> list[dict]:
    """Every recorded night, oldest first. Raises StoreError naming a record that is damaged."""
    paths = sorted((root / "nights").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [{name: value for name, value in read_sealed(path).items() if name != "seal"} for path in paths]
