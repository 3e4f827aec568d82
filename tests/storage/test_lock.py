"""One writer a root; the lock falls with its process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="a long night"), WriterLock(tmp_path, purpose="mine"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()

    with WriterLock(tmp_path, purpose="mine"):
        pass
