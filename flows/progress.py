"""How far is a long step? A bar where a person looks, a log line now and then where nobody does."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""


class Batch(Protocol):
    """Where a training stands after a batch; epochs and batches are counted from 1."""

    @property
    def epoch(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def batches(self) -> int: ...


LOG_EVERY = 30.0
"""Seconds between two log lines of one step where there is no terminal."""


@contextlib.contextmanager
def progress(step: str) -> Iterator[OnProgress]:
    """Yield a callback (done, total) that shows how far `step` is."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
            task = bars.add_task(step, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    started = said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LOG_EVERY:
            said = now
            left = (now - started) / done * (total - done) if done else float("nan")
            logger.info("%s: %d of %d, about %.0f s left", step, done, total, left)

    yield say


def in_batches(on_progress: OnProgress) -> Callable[[Batch], None]:
    """What a training calls after each batch, counted in batches of all its epochs."""
    return lambda at: on_progress((at.epoch - 1) * at.batches + at.batch, at.epochs * at.batches)
