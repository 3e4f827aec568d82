"""How does a study go on where it was left? Each part is published as soon as it is done, and so are the tables.

A part is a version of `<root>/study_parts/<study>.<part>`, under the hash of everything that it was made of: what was
once computed is not computed again, also where the study has been of other values meanwhile.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from flows.digests import digest
from storage import files
from storage.layout import STUDIES, STUDY_PARTS

REPORT = "report.html"
"""The page of a study, beside its tables."""


def stored(root: Path, name: str, key: str) -> files.Version | None:
    """The part called `name` made of what `key` is the hash of. Raises StoreError for damage in it or a newer one."""
    folder = files.named(root / STUDY_PARTS, name)
    newest_first = (files.read_version(files.path_of(folder, number)) for number in reversed(files.numbers(folder)))
    return next((part for part in newest_first if part.content_hash == key), None)


def newest(root: Path, name: str) -> files.Version | None:
    """The newest part called `name`, whatever it was made of. Raises StoreError for damage."""
    return files.latest(files.named(root / STUDY_PARTS, name))


def keep(
    root: Path, name: str, key: str, tables: Mapping[str, pl.DataFrame], meta: Mapping[str, object]
) -> files.Version:
    """Publish what a part found as `<table>.parquet`, and what is to be remembered of it."""
    return files.publish(files.named(root / STUDY_PARTS, name), _writers(tables), content_hash=key, meta=meta)


def published(root: Path, study: str, key: str) -> files.Version | None:
    """The newest tables of a study, where they were made of what `key` is the hash of."""
    found = files.latest(root / STUDIES / study)
    return found if found is not None and found.content_hash == key else None


def publish_tables(
    root: Path,
    study: str,
    tables: Mapping[str, pl.DataFrame],
    meta: Mapping[str, object],
    *,
    key: str | None = None,
    page: str | None = None,
) -> files.Version:
    """Publish the tables of a study as `<name>.parquet`, or return the version that already holds them.

    key: hash of what they are made of; of what they and the page say if None. page: `REPORT`, as HTML.
    """
    key = key or digest([page, *([name, table.write_json()] for name, table in tables.items())])
    writers = _writers(tables)
    if page is not None:
        writers[REPORT] = lambda path: path.write_text(page, encoding="utf-8")
    return files.publish(root / STUDIES / study, writers, content_hash=key, meta=meta)


def _writers(tables: Mapping[str, pl.DataFrame]) -> dict[str, Callable[[Path], object]]:
    return {f"{name}.parquet": table.write_parquet for name, table in tables.items()}
