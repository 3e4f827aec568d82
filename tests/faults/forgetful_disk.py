"""A disk that keeps only what it was told to flush: what may be left of a folder when the power fails.

A file has the bytes it had when it was last flushed; what was written since is there, half there, zeros or nothing, as
chance will. A folder has the entries it had when it was last flushed, and of the changes since then the first few: a
journal keeps the order within one folder and promises nothing between two.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.calls import Call

Event = tuple[str, str, str, bytes]
"""(what happened, path below the root, second path of a rename, bytes of the file after a write)."""


@dataclass
class Recorder:
    """A plan for `calls.watched` that carries everything out and writes down what it did to the disk."""

    root: Path
    events: list[Event] = field(default_factory=list)

    def __call__(self, call: Call, do: Callable[[], Any], torn: object) -> Any:
        """See `calls.Plan`."""
        path = Path(call.path)
        new = not path.exists()
        done = do()
        if call.name in ("open", "open_file", "connect", "write_parquet") and new and path.exists():
            self._note("create", path)
        if call.name == "mkdir" and new:
            self._note("mkdir", path)
        elif call.name in ("rename", "replace"):
            self.events.append(("rename", self._name(path), self._name(Path(call.other)), b""))
        elif call.name in ("unlink", "rmdir"):
            self._note("unlink", path)
        elif call.name == "fsync":
            self._note("flush", path)
        if call.name in ("write_parquet", "connect", "pwrite", "ftruncate", "close") and path.is_file():
            self._note("bytes", path, path.read_bytes())
        return done

    def _note(self, what: str, path: Path, data: bytes = b"") -> None:
        if what == "flush" and path.is_file():
            data = path.read_bytes()
        self.events.append((what, self._name(path), "", data))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.root)


@dataclass
class _Folder:
    entries: dict[str, Any] = field(default_factory=dict)
    flushed: dict[str, Any] = field(default_factory=dict)
    since: list[Callable[[dict[str, Any]], object]] = field(default_factory=list)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        change(self.entries)
        self.since.append(change)


@dataclass
class _File:
    data: bytes = b""
    flushed: bytes | None = None


def left_by_power_loss(old: Path, events: list[Event], target: Path, rng: np.random.Generator) -> None:
    """Write to `target` what may be left of `old` after `events`."""
    top = _durable(old)
    for what, name, other, data in events:
        if name == ".":
            folder, last = top, ""
        else:
            folder, last = _find(top, name)
        if what == "create":
            folder.change(_put(last, _File()))
        elif what == "mkdir":
            folder.change(_put(last, _Folder()))
        elif what == "unlink":
            folder.change(lambda entries, last=last: entries.pop(last, None))
        elif what == "rename":
            moved, (into, new) = folder.entries[last], _find(top, other)
            assert into is folder, "a rename between folders is not atomic when the power fails"
            folder.change(_move(last, new, moved))
        elif what == "bytes":
            folder.entries[last].data = data
        elif what == "flush":
            found = folder.entries[last] if last else top
            if isinstance(found, _Folder):
                found.flushed, found.since = dict(found.entries), []
            else:
                found.data = found.flushed = data
    _write_out(top, target, rng)


def _durable(path: Path) -> _Folder:
    entries = {
        p.name: _durable(p) if p.is_dir() else _File(data := p.read_bytes(), data) for p in sorted(path.iterdir())
    }
    return _Folder(entries, dict(entries))


def _find(top: _Folder, name: str) -> tuple[_Folder, str]:
    *parts, last = Path(name).parts
    for part in parts:
        top = top.entries[part]
    return top, last


def _put(name: str, made: object) -> Callable[[dict[str, Any]], object]:
    return lambda entries: entries.__setitem__(name, made)


def _move(old: str, new: str, moved: object) -> Callable[[dict[str, Any]], object]:
    def change(entries: dict[str, Any]) -> None:
        entries.pop(old, None)
        entries[new] = moved

    return change


def _write_out(folder: _Folder, target: Path, rng: np.random.Generator) -> None:
    target.mkdir()
    entries = dict(folder.flushed)
    for change in folder.since[: rng.integers(len(folder.since) + 1)]:
        change(entries)
    for name, entry in entries.items():
        if isinstance(entry, _Folder):
            _write_out(entry, target / name, rng)
        else:
            (target / name).write_bytes(_left(entry, rng))


def _left(file: _File, rng: np.random.Generator) -> bytes:
    if file.flushed == file.data:
        return file.data
    return [file.flushed or b"", file.data, file.data[: len(file.data) // 2], bytes(len(file.data))][rng.integers(4)]
