"""Do the rows that judge differ from those that teach, and lie after them? Labels, histories and the split."""

from collections.abc import Iterator, Mapping

import polars as pl

from flows.audits import Audited, shown
from storage.interactions import history_lengths

TWIN_ROWS = 5
"""Users who did the same this often, to the second, are one user under two names."""


def row_in_two_parts(audited: Audited) -> Iterator[str]:
    """The same user, item and time among the rows of two parts of the split."""
    key = ["user_id", "item_id", "timestamp"]
    twice = audited.samples.group_by(key).agg(pl.col("split").n_unique()).filter(pl.col("split") > 1).sort(key)
    if len(twice):
        yield shown(twice, *key)


def user_under_two_names(audited: Audited) -> Iterator[str]:
    """Two users with the same items and ratings at the same seconds, one of them in a part that judges."""
    rows = audited.dataset.interactions
    key = ["item_id", "timestamp", "rating"]
    pairs = rows.join(rows, on=key, suffix="_twin").filter(pl.col("user_id") < pl.col("user_id_twin"))
    twins = pairs.group_by("user_id", "user_id_twin").len().filter(pl.col("len") >= TWIN_ROWS)
    judged = audited.samples.filter(pl.col("split") != "train")["user_id"].unique().implode()
    twins = twins.filter(pl.col("user_id").is_in(judged) | pl.col("user_id_twin").is_in(judged)).sort("user_id")
    if len(twins):
        yield shown(twins, "user_id", "user_id_twin")


def training_row_after_a_judging_row(audited: Audited) -> Iterator[str]:
    """A cut at one moment for everybody has every training row before every row that judges."""
    if not audited.time_split:
        return
    last = audited.train["timestamp"].max()
    judging = audited.samples.filter(pl.col("split") != "train")
    early = judging.filter(pl.col("timestamp") < last)
    if len(early):
        yield f"training ends at {last}; {shown(early, 'split', 'user_id', 'timestamp')}"


def test_row_before_a_validation_row(audited: Audited) -> Iterator[str]:
    """The rows that choose a model lie before those that judge it, or the choice has seen the test."""
    if not audited.time_split:
        return
    first = audited.samples.filter(pl.col("split") == "test")["timestamp"].min()
    late = audited.samples.filter((pl.col("split") == "validation") & (pl.col("timestamp") > first))
    if len(late):
        yield f"the test begins at {first}; {shown(late, 'user_id', 'timestamp')}"


def users_training_row_after_own_test_row(audited: Audited) -> Iterator[str]:
    """Whatever the split, a user's training rows lie before the user's test rows."""
    first = audited.samples.filter(pl.col("split") == "test").group_by("user_id").agg(test=pl.col("timestamp").min())
    late = audited.train.join(first, on="user_id").filter(pl.col("timestamp") > pl.col("test"))
    if len(late):
        yield shown(late, "user_id", "timestamp", "test")


def history_that_holds_its_label(audited: Audited) -> Iterator[str]:
    """`n_before` counts rows that are not strictly earlier: the label's own row, or rows of its instant."""
    rows = audited.dataset.interactions
    true = rows.select("user_id", "source_row", earlier=pl.Series(history_lengths(rows)))
    found = audited.samples.join(true, on=["user_id", "source_row"], how="left", maintain_order="left")
    wrong = found.filter(pl.col("n_before") > pl.col("earlier"))
    if len(wrong):
        yield shown(wrong, "user_id", "timestamp", "n_before", "earlier")


def label_of_another_row(audited: Audited) -> Iterator[str]:
    """A label that is not what the row's own rating says: labels were shifted or filled in."""
    rules = audited.snapshot.lineage.get("labels")
    if not isinstance(rules, Mapping):
        return
    rated = audited.dataset.interactions.select("user_id", "source_row", "rating")
    found = audited.samples.join(rated, on=["user_id", "source_row"], how="left", maintain_order="left")
    wrong = found.filter(pl.col("label") != (pl.col("rating") > rules["rating_above"]).cast(pl.Int8))
    if len(wrong):
        yield shown(wrong, "user_id", "item_id", "rating", "label")


CHECKS = (
    row_in_two_parts,
    user_under_two_names,
    training_row_after_a_judging_row,
    test_row_before_a_validation_row,
    users_training_row_after_own_test_row,
    history_that_holds_its_label,
    label_of_another_row,
)
