"""Was anything fitted on rows that judge? Columns of the tables, vocabularies, and the whitening of trained runs."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from ctr_models.opinions import fit_usual
from ctr_models.text import TextStatistics, fit_statistics
from ctr_models.vocabulary import fit_vocabulary
from flows.audits import Audited
from flows.learning import arm_of, view
from storage.features import FeatureSet

AGREE = 0.9
"""Share of the entities on which a column must agree with a count of everything to be taken for it."""
FORGOTTEN = 0.02
"""How far usual ratings may lie from those of today's training rows, in deviations: people are forgotten."""


def column_made_from_all_rows(audited: Audited) -> Iterator[str]:
    """A number of a user or an item that is a count, a share or a mean over all rows, those that judge among them."""
    rows = audited.dataset.interactions
    above = _rating_above(audited)
    last = audited.train["timestamp"].max()
    for side, table in (("user", audited.dataset.users), ("item", audited.dataset.items)):
        parts = (rows, rows.filter(pl.col("timestamp") <= last))
        everything, past = (_summaries(part, f"{side}_id", above) for part in parts)
        for name, dtype in table.schema.items():
            if not dtype.is_numeric():
                continue
            column = table.select(f"{side}_id", value=pl.col(name).cast(pl.Float64)).drop_nulls()
            for made in everything.columns[1:]:
                whole, known = (_agreement(column, each.select(f"{side}_id", made=made)) for each in (everything, past))
                if whole >= AGREE and whole > known:
                    yield f"{side}s' column {name!r} is the {made} over all rows, not over those known at training"


def vocabulary_of_everything(audited: Audited) -> Iterator[str]:
    """A run's vocabulary that holds more than training rows and their histories do."""
    for name, run in audited.runs.items():
        fitted = fit_vocabulary(audited.dataset, audited.train, drop=run.config.samples.drop_fields)
        ours = {field.name: field for field in fitted.fields}
        for field in run.vocabulary.fields:
            known = ours.get(field.name)
            more = set(field.values) - set(known.values if known else ())
            more = {value for value in more if not value.startswith("\0")}  # the places of forgotten people
            if more:
                yield f"run {name!r}: {field.name} knows {len(more)} values of no training row, as {min(more)!r}"
            elif known is not None and field.edges != known.edges:
                yield f"run {name!r}: the buckets of {field.name} are not those of the training rows"


def usual_ratings_of_everything(audited: Audited) -> Iterator[str]:
    """A run whose usual ratings of items come from more than training rows."""
    fitted = fit_usual(audited.dataset, audited.train)
    for name, run in audited.runs.items():
        usual = run.vocabulary.usual
        means = dict(zip(usual.items, usual.means, strict=True))
        apart = [means.get(item, usual.mean) - mean for item, mean in zip(fitted.items, fitted.means, strict=True)]
        if apart and np.sqrt(np.mean(np.square(apart))) > FORGOTTEN * fitted.deviation:
            yield f"run {name!r}: what items are usually rated is not what training rows say"


def text_mean_of_everything(audited: Audited) -> Iterator[str]:
    """A run whose text vectors are centred on more than the texts of training rows."""
    for name, own, fitted in _statistics(audited):
        if not np.allclose(own.mean, fitted.mean, atol=1e-4):
            yield f"run {name!r}: the mean of {own.name} is not that of the texts that training rows find"


def whitening_of_everything(audited: Audited) -> Iterator[str]:
    """A run whose principal components, or their scale, come from more than the texts of training rows."""
    for name, own, fitted in _statistics(audited):
        # Axes may turn within equal variances and change sign; what whitening does to distances may not.
        ours, theirs = own.components @ own.components.T, fitted.components @ fitted.components.T
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > 1e-2 * max(1.0, np.abs(theirs).max()):
            yield f"run {name!r}: the whitening of {own.name} is not that of the texts that training rows find"


def _statistics(audited: Audited) -> Iterator[tuple[str, TextStatistics, TextStatistics]]:
    for name, run in audited.runs.items():
        there = view(audited.snapshot, arm_of(name)).features
        sets: list[FeatureSet] = [there[each.name] for each in run.statistics if each.name in there]
        if len(sets) == len(run.statistics) and sets:
            read = run.config.samples
            fitted = fit_statistics(sets, audited.train, dimensions=read.text_dimensions, whiten=read.whiten)
            for own, again in zip(run.statistics, fitted, strict=True):
                yield name, own, again


def _summaries(rows: pl.DataFrame, id_: str, above: float) -> pl.DataFrame:
    """Per entity what a column may have been made of."""
    liked = pl.col("rating") > above
    return rows.group_by(id_).agg(
        count=pl.len().cast(pl.Float64),
        likes=liked.sum().cast(pl.Float64),
        mean_rating=pl.col("rating").mean().cast(pl.Float64),
        like_share=liked.mean(),
        last_time=pl.col("timestamp").max().cast(pl.Float64),
    )


def _agreement(column: pl.DataFrame, made: pl.DataFrame) -> float:
    """Share of the entities with a summary whose column is it, up to rounding to two digits."""
    both = column.join(made, on=column.columns[0]).drop_nulls()
    if not len(both):
        return 0.0
    return float((np.abs(both["value"].to_numpy() - both["made"].to_numpy()) <= 0.0051).mean())


def _rating_above(audited: Audited) -> float:
    rules = audited.snapshot.lineage.get("labels")
    return float(rules["rating_above"]) if isinstance(rules, Mapping) else 3.0


CHECKS = (
    column_made_from_all_rows,
    vocabulary_of_everything,
    usual_ratings_of_everything,
    text_mean_of_everything,
    whitening_of_everything,
)
