"""Power fails at random moments, and what was not flushed is lost: what was committed is whole, the rest is absent."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.faults.calls import watched
from tests.faults.forgetful_disk import Recorder, left_by_power_loss
from tests.faults.publishing import PUBLISHINGS


@pytest.mark.parametrize("name", PUBLISHINGS)
def test_what_is_left_is_the_old_state_or_the_new(name: str, tmp_path: Path, count: Callable[[int, int], int]) -> None:
    """And the new one for certain, once the writer was told that it is done."""
    one, rng = PUBLISHINGS[name], np.random.default_rng(1)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    one.before(old)
    shutil.copytree(old, new)
    recorder = Recorder(new)
    with watched(new, recorder):
        one.act(new)
    before, after, events = one.see(old), one.see(new), recorder.events
    for trial in range(count(60, 1000)):
        happened = len(events) if trial % 4 == 0 else int(rng.integers(len(events)))
        left = tmp_path / f"left-{trial}"
        left_by_power_loss(old, events[:happened], left, rng)

        seen = one.see(left)
        assert seen == after or (seen == before and happened < len(events)), f"after {events[max(0, happened - 2) :]}"
        one.act(left)
        assert one.see(left) == after
        shutil.rmtree(left)


def test_the_forgetful_disk_notices_a_missing_flush(tmp_path: Path) -> None:
    """A writer that flushes nothing is found out, or the test above shows nothing."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a").write_bytes(b"old")
    shutil.copytree(old, new)
    recorder = Recorder(new)
    with watched(new, recorder):
        (new / ".tmp").write_bytes(b"new")
        (new / ".tmp").replace(new / "a")
    seen = set()
    for trial in range(60):
        left_by_power_loss(old, recorder.events, tmp_path / f"{trial}", np.random.default_rng(trial))
        seen.add((tmp_path / f"{trial}" / "a").read_bytes())

    assert {b"old", b"new"} < seen
