"""One writer a root; the lock falls with its process."""

import json
import logging
import os
import signal
import subprocess
import sys
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
