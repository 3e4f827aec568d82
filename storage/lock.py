"""Who may write to this data root right now? One process at a time.

The lock is the kernel's (`flock`), so on one machine it falls with the process that held it, however that process
ended. The file says who holds it (pid, boot, host) and, by a heartbeat, when it last lived: a holder that died is seen
and superseded, and one on another machine, which shares the folder but not the kernel, is respected while it beats.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.disk import make_folder, naming
from storage.errors import StoreError

logger = logging.getLogger(__name__)

HEARTBEAT = 30.0
"""Seconds between two signs of life."""
SILENCE = 600.0
"""Seconds without a sign of life after which a holder on another machine counts as dead."""


class WriterLock:
    """Context manager: the only writer of `root` while it is open. Raises StoreError naming the holder.

    died: what the file says of a holder that never let go (pid, boot, host, purpose, started, heartbeat), else None.
    """

    def __init__(self, root: Path, *, purpose: str) -> None:
        self.path = root / "writer.lock"
        self.purpose = purpose
        self.died: dict[str, Any] | None = None
        self._descriptor: int | None = None
        self._done = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> "WriterLock":
        with naming(self.path):
            make_folder(self.path.parent)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._take(descriptor)
                self._say(descriptor, time.time())
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        self._done.clear()
        self._beating = threading.Thread(target=self._beat, args=(descriptor,), daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._descriptor is not None
        assert self._beating is not None
        self._done.set()
        self._beating.join()
        with contextlib.suppress(OSError):  # left behind, the text only looks like a death
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(_holder(descriptor) or {"pid": "unknown"}) from None
        self.died = _holder(descriptor)
        if self.died is None:
            return
        silent = time.time() - float(self.died.get("heartbeat", 0))
        if self.died.get("host") != os.uname().nodename and silent < SILENCE:
            raise self._refusal(self.died)
        logger.warning("the writer before this one died and is superseded: %s", json.dumps(self.died))

    def _refusal(self, holder: dict[str, Any]) -> StoreError:
        ago = f", last seen {time.time() - holder['heartbeat']:.0f} s ago" if "heartbeat" in holder else ""
        return StoreError(
            f"another run is writing to {self.path.parent}: {json.dumps(holder)}{ago}; wait for it to end"
        )

    def _say(self, descriptor: int, started: float) -> None:
        self._holder = {
            "pid": os.getpid(),
            "boot": _boot(),
            "host": os.uname().nodename,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "purpose": self.purpose,
        }
        text = json.dumps({**self._holder, "heartbeat": int(time.time())}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)

    def _beat(self, descriptor: int) -> None:
        while not self._done.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a full disk ends the night where it writes data, not here
                os.pwrite(descriptor, json.dumps({**self._holder, "heartbeat": int(time.time())}).encode(), 0)


def _holder(descriptor: int) -> dict[str, Any] | None:
    """What the file says of its holder, or None where it says nothing whole."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("heartbeat", 0), int) else None


def _boot() -> str:
    """Identity of this start of the machine: a pid means nothing after the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
