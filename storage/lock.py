"""Who may write to this data root right now? One process at a time.

The lock is the kernel's (`flock`), so it falls with the process that held it, however that process ended: nothing
stale is ever left behind. The file's text only says who holds it, for the message that the second writer gets.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

from storage.errors import StoreError
from storage.files import naming


class WriterLock:
    """Context manager: the only writer of `root` while it is open. Raises StoreError naming the holder."""

    def __init__(self, root: Path, *, purpose: str) -> None:
        self.path = root / "writer.lock"
        self.purpose = purpose
        self._descriptor: int | None = None

    def __enter__(self) -> "WriterLock":
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 4096).decode(errors="replace") or "an unknown process"
            os.close(descriptor)
            raise StoreError(f"another run is writing to {self.path.parent}: {holder}; wait for it to end") from None
        os.ftruncate(descriptor, 0)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder = {"pid": os.getpid(), "host": os.uname().nodename, "started": started, "purpose": self.purpose}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
