"""Jobs are done once each in processes that say what they find; what goes wrong in one is said by the parent."""

import os
import signal
from collections.abc import Callable

import pytest

from flows.studies.processes import Say, spread
from storage.errors import NightshiftError, StoreError


def squarer(offset: int) -> Callable[[int, Say], None]:
    def work(job: int, say: Say) -> None:
        if job == -1:
            raise StoreError("a table is damaged")
        if job == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        say(job * job + offset)

    return work


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_is_done_once_and_may_bring_more(processes: int) -> None:
    waiting, heard = [1, 2, 3], []

    def hear(said: int) -> None:
        heard.append(said)
        if said == 104:
            waiting.append(5)

    spread(squarer, 100, waiting, hear, processes=processes)

    assert sorted(heard) == [101, 104, 109, 125]


def test_what_fails_in_a_process_is_raised_here() -> None:
    heard: list[int] = []
    with pytest.raises(StoreError, match="a table is damaged") as caught:
        spread(squarer, 0, [-1], heard.append, processes=2)
    assert any("in work" in note for note in caught.value.__notes__)


def test_a_process_that_is_gone_is_missed() -> None:
    with pytest.raises(NightshiftError, match="fewer --workers"):
        spread(squarer, 0, [-2], lambda _: None, processes=2)
