"""One writer a root; the lock falls with its process."""

import calendar
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage import lock
from storage.errors import StoreError
from storage.lock import WriterLock

HOLD = """
import sys, time
from pathlib import Path
from storage.lock import WriterLock
with WriterLock(Path(sys.argv[1]), purpose="a long night"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    told = f'"pid": {os.getpid()}.*a night'
    with (
        WriterLock(tmp_path, purpose="a night"),
        pytest.raises(StoreError, match=told),
        WriterLock(tmp_path, purpose="other"),
    ):
        pass
    with WriterLock(tmp_path, purpose="later"):
        pass


def test_a_killed_writer_leaves_no_lock_and_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="a long night"), WriterLock(tmp_path, purpose="mine"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()

    with caplog.at_level(logging.WARNING), WriterLock(tmp_path, purpose="mine") as mine:
        assert mine.died is not None
        assert (mine.died["pid"], mine.died["purpose"]) == (holder.pid, "a long night")
    assert "died and is superseded" in caplog.text
    with WriterLock(tmp_path, purpose="later") as later:
        assert later.died is None  # the one before let go


def left_behind(path: Path, **said: object) -> None:
    path.write_text(json.dumps({"pid": 1, "boot": "b", "host": "elsewhere", "purpose": "a night"} | said))


def test_a_holder_on_another_machine_is_respected_while_its_heart_beats(tmp_path: Path) -> None:
    """The kernel's lock does not reach it: what is left is what the file says."""
    left_behind(tmp_path / "writer.lock", heartbeat=int(time.time()) - 60)
    with (
        pytest.raises(StoreError, match=r'"host": "elsewhere".* last seen 6\d s ago'),
        WriterLock(tmp_path, purpose="x"),
    ):
        pass
    left_behind(tmp_path / "writer.lock", heartbeat=int(time.time() - lock.SILENCE - 1))
    with WriterLock(tmp_path, purpose="x") as mine:
        assert mine.died is not None
    left_behind(
        tmp_path / "writer.lock", heartbeat=int(time.time()), host=os.uname().nodename, boot="before the reboot"
    )
    with WriterLock(tmp_path, purpose="x") as mine:
        assert mine.died is not None


def test_the_heart_beats_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    with WriterLock(tmp_path, purpose="x"):
        now += 1000
        deadline = time.monotonic() + 30
        while json.loads((tmp_path / "writer.lock").read_text())["heartbeat"] < now - 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (tmp_path / "writer.lock").read_text() == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"heartbeat": "soon"}', "\x00" * 50])
def test_a_torn_lock_file_stops_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "writer.lock").write_text(text)
    with WriterLock(tmp_path, purpose="x") as mine:
        assert mine.died is None


def test_what_the_file_says_of_its_holder(tmp_path: Path) -> None:
    before = int(time.time())
    with WriterLock(tmp_path / "new" / "root", purpose="a night") as mine:
        said = json.loads(mine.path.read_text())
    assert (said["pid"], said["host"], said["purpose"]) == (os.getpid(), os.uname().nodename, "a night")
    assert said["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert before <= said["heartbeat"] <= time.time()
    started = calendar.timegm(time.strptime(said["started"], "%Y-%m-%dT%H:%M:%SZ"))
    assert before <= started <= time.time()


def n_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_refused_writer_holds_nothing_and_changes_nothing(tmp_path: Path) -> None:
    with WriterLock(tmp_path, purpose="first") as first:
        said, before = first.path.read_text(), n_open()
        for _ in range(3):
            with pytest.raises(StoreError, match="first"), WriterLock(tmp_path, purpose="second"):
                pass
        assert n_open() == before
        assert first.path.read_text() == said


def test_a_lock_can_be_taken_again_and_ends_its_thread(tmp_path: Path) -> None:
    threads, mine = threading.active_count(), WriterLock(tmp_path, purpose="x")
    for _ in range(3):
        with mine:
            assert threading.active_count() == threads + 1
        assert threading.active_count() == threads


def test_a_machine_that_does_not_tell_its_boot_can_lock_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_text

    def refuse(path: Path, *args: str, **options: str) -> str:
        if path.name == "boot_id":
            raise FileNotFoundError(2, "No such file or directory")
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    with WriterLock(tmp_path, purpose="x") as mine:
        assert json.loads(mine.path.read_text())["boot"] == "unknown"


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"cannot write .*file/writer\.lock"),
        WriterLock(tmp_path / "file", purpose="x"),
    ):
        pass
