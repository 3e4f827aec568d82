"""Is everything stored what it was when it was written, and was every joined row known at its time?"""

from collections.abc import Iterator
from pathlib import Path

from flows.config import RunConfig
from flows.learning import COMPARISONS, snapshot
from flows.progress import progress
from storage import cache, files
from storage.errors import NightshiftError
from storage.snapshot import point_in_time_violations


def verify(config: RunConfig, *, users: int) -> dict:
    """Read back every file of the data root against its hash, and recompute the joined rows of random users.

    Returns the counts and `problems`, one sentence each; changes nothing.
    """
    root = config.store.root
    problems: list[str] = []
    n_files = 0
    folders = list(_version_folders(root))
    with progress("reading back") as on_progress:
        for done, folder in enumerate(folders, start=1):
            try:
                for version in files.versions(folder):
                    problems += files.verify(version)
                    n_files += len(version.manifest["files"]) + 1
            except NightshiftError as error:
                problems.append(str(error))
            on_progress(done, len(folders))
    for folder in (root / "prompts", root / "texts", *_folders(root / "vectors")):
        problems += cache.verify(folder)
        n_files += len(cache.parts(folder))
    checked, chosen = 0, 0
    if users and not problems:
        taken = snapshot(config)
        checked, wrong = point_in_time_violations(taken, users=users)
        chosen = min(users, taken.samples["user_id"].n_unique())
        problems += wrong
    return {"files": n_files, "rows_checked": checked, "users": chosen, "problems": problems}


def _version_folders(root: Path) -> Iterator[Path]:
    yield from (root / "dataset", root / "recommendations")
    for parent in ("features", "runs", COMPARISONS):
        yield from _folders(root / parent)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
