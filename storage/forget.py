"""How is one person erased from the tables of a data root, and kept from coming back with the next ingest?

Versions are immutable, so each is published again without the person and the others are taken away. Who was forgotten
is remembered as a salted hash: it tells the person's rows in a source that still holds them, and names nobody.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage import files
from storage.disk import read_sealed, write_sealed
from storage.features import folder, publish_features
from storage.schema import FEATURES, REJECTED, content_hash
from storage.vacuum import remove

_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Forgotten:
    """Who was forgotten: salted sha256 of each id, and the lengths the ids have."""

    salt: str
    people: frozenset[str]
    lengths: frozenset[int]

    def knows(self, user_id: str) -> bool:
        """Whether this id was forgotten."""
        return len(user_id) in self.lengths and self._hash(user_id) in self.people

    def mentioned(self, text: str) -> bool:
        """Whether a forgotten id stands in `text` as a word of its own."""
        return any(
            self.knows(text[start : start + length])
            for length in self.lengths
            for start in range(len(text) - length + 1)
            if alone(text, start, start + length)
        )

    def _hash(self, user_id: str) -> str:
        return hashlib.sha256(f"{self.salt}{user_id}".encode()).hexdigest()


def alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is not a part of a longer word or number."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (_WORD.match(before) or _WORD.match(after))


def forgotten(root: Path) -> Forgotten:
    """Who was forgotten in this data root. Raises StoreError where the list is damaged."""
    path = root / "forgotten.json"
    said = read_sealed(path) if path.is_file() else {"salt": secrets.token_hex(16), "people": [], "lengths": []}
    return Forgotten(said["salt"], frozenset(said["people"]), frozenset(said["lengths"]))


def remember_to_forget(root: Path, user_id: str) -> None:
    """From now on no ingest stores anything of this person. Raises StoreError."""
    known = forgotten(root)
    people, lengths = known.people | {known._hash(user_id)}, known.lengths | {len(user_id)}
    write_sealed(root / "forgotten.json", {"salt": known.salt, "people": sorted(people), "lengths": sorted(lengths)})


def without(
    known: Forgotten, interactions: pl.DataFrame, users: pl.DataFrame, quarantine: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The three tables without rows of forgotten people; quarantined lines that mention one go too."""
    if not known.people:
        return interactions, users, quarantine
    ids = interactions["user_id"].unique().to_list() + users["user_id"].to_list()
    gone = pl.Series([user for user in dict.fromkeys(ids) if known.knows(user)], dtype=pl.String).implode()
    here = ~pl.col("user_id").is_in(gone)
    silent = [not known.mentioned(content) for content in quarantine["content"].fill_null("")]
    return interactions.filter(here), users.filter(here), quarantine.filter(silent)


def forget_features(root: Path, name: str, user_id: str) -> int:
    """Publish a set of user texts without the person and take away every version before. Returns the rows that went."""
    every = files.versions(folder(root, name))
    newest = every[-1]
    if newest.meta["entity"] != "user":
        return 0
    tables = [files.read_table(newest, f"{table}.parquet") for table in ("features", "rejected", "vectors")]
    rows, rejected = (table.filter(pl.col("entity_id") != user_id) for table in tables[:2])
    gone = len(tables[0]) + len(tables[1]) - len(rows) - len(rejected)
    kept = newest
    if gone:
        kept = publish_features(
            root,
            name,
            entity="user",
            rows=rows.select(list(FEATURES)),
            rejected=rejected.select(list(REJECTED)),
            vectors=tables[2],
            encoder=newest.meta["encoder"],
            lineage=newest.meta["lineage"],
        )
    _take_away(every, kept)
    return gone


def forget_recommendations(root: Path, user_id: str) -> int:
    """Publish the recommendations without the person's, take away every version before. Returns the rows that went."""
    every = files.versions(root / "recommendations")
    if not every:
        return 0
    newest = every[-1]
    rows = files.read_table(newest, "recommendations.parquet")
    left = rows.filter(pl.col("user_id") != user_id)
    kept = newest
    if len(left) < len(rows):
        kept = files.publish(
            root / "recommendations",
            {"recommendations.parquet": left.write_parquet},
            content_hash=content_hash(left, extra=newest.meta["made_from"]),
            meta=newest.meta,
        )
    _take_away(every, kept)
    return len(rows) - len(left)


def _take_away(versions: Sequence[files.Version], kept: files.Version) -> None:
    for version in versions:
        if version.number != kept.number:
            remove(version)
