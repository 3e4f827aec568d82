"""Did a label see a text that was not there yet? Every joined row beside the times of what it was joined to."""

from collections.abc import Iterator

import polars as pl

from flows.audits import Audited, shown
from storage.snapshot import join_as_of


def _joined(audited: Audited) -> Iterator[tuple[str, pl.DataFrame]]:
    """For each feature set the samples that have a text, with the times of the row they were joined to."""
    for name, feature in audited.snapshot.features.items():
        id_ = f"{feature.entity}_id"
        texts = feature.rows.select(
            pl.col("vector_row").alias(f"{name}_row"), "as_of", "created_at", "n_history", entity="entity_id"
        )
        mine = texts.group_by(f"{name}_row", "entity").agg(pl.col("as_of", "created_at", "n_history").min())
        samples = audited.samples.filter(pl.col(f"{name}_row") >= 0).with_columns(entity=pl.col(id_))
        # A text may be shared: the earliest of this entity's own rows with it counts for the label.
        yield name, samples.join(mine, on=[f"{name}_row", "entity"], how="left", maintain_order="left")


def text_of_somebody_else(audited: Audited) -> Iterator[str]:
    """A row was joined to a text that its own user or item does not have."""
    for name, rows in _joined(audited):
        wrong = rows.filter(pl.col("as_of").is_null())
        if len(wrong):
            yield f"{name}: {shown(wrong, 'user_id', 'item_id', 'timestamp')}"


def text_of_the_label_instant(audited: Audited) -> Iterator[str]:
    """A text that is as of the very instant of the label may have seen it."""
    for name, rows in _joined(audited):
        wrong = rows.filter(pl.col("as_of") == pl.col("timestamp"))
        if len(wrong):
            yield f"{name}: {shown(wrong, 'user_id', 'item_id', 'timestamp')}"


def text_from_the_future(audited: Audited) -> Iterator[str]:
    """A text that is as of a later time than the label: the newest text was joined to every row."""
    for name, rows in _joined(audited):
        wrong = rows.filter(pl.col("as_of") > pl.col("timestamp"))
        if len(wrong):
            yield f"{name}: {shown(wrong, 'user_id', 'item_id', 'timestamp', 'as_of')}"


def text_used_before_it_was_made(audited: Audited) -> Iterator[str]:
    """Where texts must have existed before the label (`known_at`): a backfilled text is joined to an old label."""
    if not audited.known_at:
        return
    for name, rows in _joined(audited):
        wrong = rows.filter(pl.col("created_at") >= pl.col("timestamp"))
        if len(wrong):
            yield f"{name}: {shown(wrong, 'user_id', 'item_id', 'timestamp', 'created_at')}"


def text_that_saw_more_than_the_history(audited: Audited) -> Iterator[str]:
    """A user's text that was written from more interactions than the user had before the label."""
    for name, rows in _joined(audited):
        if audited.snapshot.features[name].entity == "user":
            wrong = rows.filter(pl.col("n_history") > pl.col("n_before"))
            if len(wrong):
                yield f"{name}: {shown(wrong, 'user_id', 'timestamp', 'n_history', 'n_before')}"


def text_that_is_not_the_newest(audited: Audited) -> Iterator[str]:
    """A row with another text than the newest one known strictly before its label, or with none."""
    for name, feature in audited.snapshot.features.items():
        column = f"{name}_row"
        again = join_as_of(audited.samples.drop(column), feature, known_at=audited.known_at)
        wrong = audited.samples.filter(again[column] != audited.samples[column])
        if len(wrong):
            yield f"{name}: {shown(wrong, 'user_id', 'item_id', 'timestamp')}"


CHECKS = (
    text_of_somebody_else,
    text_of_the_label_instant,
    text_from_the_future,
    text_used_before_it_was_made,
    text_that_saw_more_than_the_history,
    text_that_is_not_the_newest,
)
