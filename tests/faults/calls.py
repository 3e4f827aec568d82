"""Every call through which the store touches the disk: listed, killed at, made to fail, or remembered.

Polars and DuckDB write from their own machine code, so what they write is one call each, which can be torn in half.
"""

import builtins
import fcntl
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import duckdb
import polars as pl

OWNERS: dict[str, Any] = {
    **dict.fromkeys(("open", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "listdir"), os),
    **dict.fromkeys(("pwrite", "ftruncate"), os),
    "flock": fcntl,
    "write_parquet": pl.DataFrame,
    "connect": duckdb,
}
"""Call -> where it is looked up. `open` of files (io.open) and their writes are wrapped beside these."""


@dataclass(frozen=True)
class Call:
    """One call under the watched folder: the n-th, its name, the path (or paths) it is about."""

    number: int
    name: str
    path: str
    other: str = ""


class Plan(Protocol):
    """What becomes of a call; `do` carries it out, `torn` (for writes) carries out half of it."""

    def __call__(self, call: Call, do: Callable[[], Any], torn: Callable[[], None] | None) -> Any: ...


def carry_out(call: Call, do: Callable[[], Any], torn: Callable[[], None] | None) -> Any:
    """The plan that interferes with nothing."""
    return do()


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the n-th call: before it, in the middle of it (a write), or after it."""

    number: int
    when: str

    def __call__(self, call: Call, do: Callable[[], Any], torn: Callable[[], None] | None) -> Any:
        """See `Plan`."""
        if call.number != self.number:
            return do()
        if self.when == "after":
            with suppress(OSError):  # a call may be meant to find nothing
                do()
        elif self.when == "middle" and torn:
            torn()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("alive after SIGKILL")


@dataclass(frozen=True)
class Fail:
    """The n-th call (and, where `persistent`, every later one) fails with `code`."""

    number: int
    code: int
    persistent: bool

    def __call__(self, call: Call, do: Callable[[], Any], torn: Callable[[], None] | None) -> Any:
        """See `Plan`."""
        if call.number == self.number or (self.persistent and call.number > self.number):
            if torn:
                torn()
            if call.name == "write_parquet":  # as polars says it
                raise pl.exceptions.ComputeError(f"parquet: underlying IO error: {os.strerror(self.code)}")
            if call.name == "connect":
                raise duckdb.IOException(f"IO Error: {os.strerror(self.code)}")
            raise OSError(self.code, os.strerror(self.code), call.path)
        return do()


@contextmanager
def watched(root: Path, plan: Plan = carry_out) -> Iterator[list[Call]]:
    """Give every call under `root` to `plan` while this is open; yields the calls so far."""
    seen: list[Call] = []
    inside = str(root)

    def route(name: str, path: str, other: str, do: Callable[[], Any], torn: Callable[[], None] | None = None) -> Any:
        if not path.startswith(inside):
            return do()
        seen.append(Call(len(seen) + 1, name, path, other))
        return plan(seen[-1], do, torn)

    def wrapped(name: str, real: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            target, other = _paths(name, args, options)
            torn = (lambda: _half(target, lambda: real(*args, **options))) if name == "write_parquet" else None
            return route(name, target, other, lambda: real(*args, **options), torn)

        return call

    def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        path = str(file) if isinstance(file, str | Path) else ""
        opened = route("open_file", path, mode, lambda: real_open(file, mode, *args, **options))
        return _Written(opened, path, route) if path.startswith(inside) and set(mode) & set("wxa+") else opened

    real_open = builtins.open
    with ExitStack() as stack:
        for name, owner in OWNERS.items():
            # Flushing makes no difference where only processes die, and takes long.
            real = getattr(owner, name) if name != "fsync" else lambda descriptor: None
            stack.enter_context(patch.object(owner, name, wrapped(name, real)))
        stack.enter_context(patch.object(io, "open", open_file))
        yield seen


class _Written:
    """A file open for writing whose writes are calls of their own."""

    def __init__(self, file: Any, path: str, route: Callable) -> None:
        self._file, self._path, self._route = file, path, route

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return self._route("write", self._path, "", lambda: self._file.write(data), half)

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._route("close", self._path, "", self._file.close)
        finally:
            self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _paths(name: str, args: tuple, options: dict) -> tuple[str, str]:
    """(path, other path) a call is about."""
    if name == "write_parquet":
        return str(args[1]), ""
    if name in ("fsync", "ftruncate", "pwrite", "flock"):
        return _opened(args[0] if isinstance(args[0], int) else args[0].fileno()), ""
    path = str(args[0]) if args else ""
    if options.get("dir_fd") is not None:  # shutil.rmtree
        path = f"{_opened(options['dir_fd'])}/{path}"
    elif path.isdigit():
        path = _opened(int(path))
    return path, str(args[1]) if name in ("rename", "replace") else ""


def _opened(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _half(path: str, write: Callable[[], Any]) -> None:
    write()
    os.truncate(path, Path(path).stat().st_size // 2)
