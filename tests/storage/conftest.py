"""What happens on the disk, in order: flushes and renames, by names below the test's own folder."""

import os
import re
from pathlib import Path

import pytest

_CHANCE = re.compile(r"[0-9a-f]{8,32}\.tmp|[0-9a-f]{64}")


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every "flush <name>" and "rename <name> -> <name>" from now on; random parts of names are stars."""
    seen: list[str] = []

    def name(path: object) -> str:
        return _CHANCE.sub("*", os.path.relpath(str(path), tmp_path))

    def flush(descriptor: int) -> None:
        seen.append(f"flush {name(Path(f'/proc/self/fd/{descriptor}').readlink())}")

    def renaming(real: object) -> object:
        def rename(old: object, new: object) -> None:
            seen.append(f"rename {name(old)} -> {name(new)}")
            real(old, new)  # type: ignore[operator]

        return rename

    monkeypatch.setattr(os, "fsync", flush)
    for call in ("rename", "replace"):
        monkeypatch.setattr(os, call, renaming(getattr(os, call)))
    return seen
