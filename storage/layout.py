"""Where in a data root does what lie? The folders of versions, those of caches, and what dead writers left."""

from collections.abc import Iterator
from pathlib import Path

from storage.disk import reading

COMPARISONS = "comparisons"
"""For each model a version for each comparison of its arms, the numbers in the manifest."""
STUDIES = "studies"
"""For each study the tables of its results."""
STUDY_PARTS = "study_parts"
"""For each part of a study what it found for each user, so that a study goes on where it was left."""
DAMAGED = "damaged"
"""What `repair` set aside."""
ENCODER = "encoder.json"
"""Beside the parts of a cache of vectors: whose they are."""


def version_folders(root: Path) -> Iterator[Path]:
    """Every folder that holds versions."""
    yield from (root / "dataset", root / "recommendations")
    for parent in ("features", "runs", "sequential_runs", COMPARISONS, STUDIES, STUDY_PARTS):
        yield from folders(root / parent)


def cache_folders(root: Path) -> dict[Path, str]:
    """Every cache, and the name of its key."""
    found = {root / "prompts": "source_hash", root / "texts": "text_key"}
    return found | dict.fromkeys(folders(root / "vectors"), "text_hash")


def records(root: Path) -> list[Path]:
    """The record of every night."""
    return sorted((root / "nights").glob("*.json"))


def leftovers(root: Path) -> list[Path]:
    """What a writer that died left under a temporary name, and versions on their way out. Raises StoreError."""
    with reading(root):
        return sorted(
            path
            for path in root.rglob(".*")
            if path.suffix in (".tmp", ".download", ".removed") or path.name.endswith(".tmp.wal")
        )


def folders(parent: Path) -> list[Path]:
    """The folders in `parent`, in name order, without those under temporary names. Raises StoreError."""
    with reading(parent):
        if not parent.is_dir():
            return []
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
