"""What was known about each label at its time? Data plus feature-set versions, joined strictly in the past.

A label row finds, for its user and for its item, the newest feature row whose `as_of` is STRICTLY before the label's
own time. Rows carry an int32 into the feature set's vectors, never a vector.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from storage.errors import ConfigError, DataError
from storage.features import FeatureSet
from storage.interactions import Dataset, history_lengths
from storage.schema import EARLIEST

KEY = ["timestamp", "user_id", "source_row"]

Rows = Literal["all", "after_half", "last"]
"""Which rows of a user are labels: all; those after the first half of them, at most 30 (KAR, arXiv 2306.10933); only
the last (ReLLa, arXiv 2308.11131, on Book-Crossing). The others are history."""
HALF_AT_MOST = 30


@dataclass(frozen=True)
class Snapshot:
    """Everything a model may learn from, as it was known at each label's time.

    samples: one row a label, sorted by (timestamp, user_id, source_row): `user_id`, `item_id`, `timestamp`,
    `source_row`, `label` (int8, 0 or 1), `n_before` (int32: the user's interactions strictly earlier, which are the
    first `n_before` rows of that user in `dataset.interactions`), `split` ("train", "validation" or "test"), and for
    every feature set an int32 column `<name>_row`: the row of its vectors known by then, -1 where there was none.
    """

    dataset: Dataset
    samples: pl.DataFrame
    features: Mapping[str, FeatureSet]
    lineage: Mapping[str, object]


def take_snapshot(
    dataset: Dataset,
    features: Sequence[FeatureSet] = (),
    *,
    rating_above: float,
    min_history: int,
    split: Callable[[pl.DataFrame], pl.DataFrame],
    known_at: bool = False,
    rows_of_user: Rows = "all",
    skip_first: int = 0,
    between: tuple[int, int] | None = None,
    lineage: Mapping[str, object] | None = None,
) -> Snapshot:
    """Label the interactions, split them, and join what was known of each at its time.

    label = rating > `rating_above`; rows with fewer than `min_history` strictly earlier rows of their user are dropped.
    split: adds the column `split` to the samples. known_at: a feature also has to exist (`created_at`) before the
    label; needs a dataset whose clock is "time". skip_first: so many rows of each user, in order, are history
    only; between: so are rows before the first moment, and from the second on.
    Raises DataError where ratings are missing or no row is left, ConfigError where `known_at` or `between` have no
    clock.
    """
    for asked, name in ((known_at, "known_at"), (between is not None, "between")):
        if asked and dataset.clock != "time":
            raise ConfigError(f"{name} needs times, but the clock of dataset {dataset.name!r} is {dataset.clock!r}")
    rows = dataset.interactions
    if rows["rating"].null_count():
        raise DataError(f"dataset {dataset.name!r} has rows without a rating; labels need one in every row")
    samples = (
        rows.with_columns(
            n_before=pl.Series(history_lengths(rows)), label=(pl.col("rating") > rating_above).cast(pl.Int8)
        )
        .filter(pl.col("n_before") >= min_history, _is_label(rows_of_user, skip_first), _is_between(between))
        .select("user_id", "item_id", "timestamp", "source_row", "label", "n_before")
        .sort(KEY)
    )
    if samples.is_empty():
        when = "" if between is None else f", from {between[0]} on and before {between[1]}"
        first, last = rows["timestamp"].min(), rows["timestamp"].max()
        raise DataError(
            f"dataset {dataset.name!r} has no row with {min_history} earlier rows of the same user{when}; its rows are "
            f"from time {first} to {last}"
        )
    samples = split(samples)
    for feature in features:
        samples = join_as_of(samples, feature, known_at=known_at)
    made_from = {f.name: {"version": f.version, "content_hash": f.manifest["content_hash"]} for f in features}
    rules: dict[str, object] = {"rating_above": rating_above, "min_history": min_history, "known_at": known_at}
    rules |= {} if rows_of_user == "all" else {"rows_of_user": rows_of_user}
    rules |= {"skip_first": skip_first} if skip_first else {}
    rules |= {} if between is None else {"between": list(between)}
    return Snapshot(
        dataset, samples, {f.name: f for f in features}, {**(lineage or {}), "features": made_from, "labels": rules}
    )


def _is_label(rows_of_user: Rows, skip_first: int) -> pl.Expr:
    """Of all interactions in their order: which may be labels, by their place among their user's."""
    place, total = pl.int_range(pl.len()).over("user_id"), pl.len().over("user_id")
    first = {
        "all": pl.lit(0),
        "after_half": pl.min_horizontal((total + 1) // 2, HALF_AT_MOST),
        "last": total - 1,
    }[rows_of_user]
    return place >= pl.max_horizontal(first, skip_first)


def _is_between(between: tuple[int, int] | None) -> pl.Expr:
    if between is None:
        return pl.lit(value=True)
    return pl.col("timestamp").is_between(*between, closed="left")


def join_as_of(samples: pl.DataFrame, feature: FeatureSet, *, known_at: bool = False) -> pl.DataFrame:
    """`samples` with the int32 column `<feature>_row`: the newest row known strictly before each label, or -1.

    Newest is the greatest (`as_of`, `n_history`). With `known_at`, only rows whose `created_at` is strictly before
    the label count; a row that came to exist late never hides a newer one that came early.
    """
    entity = f"{feature.entity}_id"
    rows = feature.rows.select("entity_id", "as_of", "created_at", "n_history", "vector_row")
    rows = rows.sort("entity_id", "as_of", "n_history").with_columns(place=pl.int_range(pl.len(), dtype=pl.Int32))
    available = pl.max_horizontal("as_of", "created_at") if known_at else pl.col("as_of")
    # Sorted by when a row became available, the best row so far is the running maximum of its place in time.
    rows = (
        rows.with_columns(available=available)
        .sort("available", "place")
        .with_columns(best=pl.col("place").cum_max().over("entity_id"))
        .join(rows.select(best="place", row="vector_row"), on="best", how="left", maintain_order="left")
        .select(pl.col("entity_id").alias(entity), "available", "row")
    )
    joined = samples.with_columns(order=pl.int_range(pl.len())).join_asof(
        rows,
        left_on="timestamp",
        right_on="available",
        by=entity,
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    joined = joined.sort("order").drop("order", "available")
    return joined.with_columns(pl.col("row").fill_null(-1).cast(pl.Int32)).rename({"row": f"{feature.name}_row"})


def point_in_time_violations(snapshot: Snapshot, *, users: int, seed: int = 0) -> tuple[int, list[str]]:
    """Recompute every joined row of random users in plain Python; (rows checked, one sentence for each difference).

    The oracle shares no code with `join_as_of`: for each sample it walks all feature rows of the entity.
    """
    chosen = snapshot.samples["user_id"].unique().sort()
    chosen = chosen.sample(min(users, len(chosen)), seed=seed)
    samples = snapshot.samples.filter(pl.col("user_id").is_in(chosen.implode()))
    times: dict[str, list[int]] = {}
    mine = snapshot.dataset.interactions.filter(pl.col("user_id").is_in(chosen.implode()))
    for user, timestamp in mine.select("user_id", "timestamp").iter_rows():
        times.setdefault(user, []).append(timestamp)
    known: dict[str, dict[str, list[tuple[int, int, int, int]]]] = {}
    for name, feature in snapshot.features.items():
        table = known.setdefault(name, {})
        for row in feature.rows.select("entity_id", "as_of", "n_history", "created_at", "vector_row").iter_rows():
            table.setdefault(row[0], []).append(row[1:])
    known_at = bool(snapshot.lineage["labels"]["known_at"])  # type: ignore[index]
    wrong = []
    for sample in samples.iter_rows(named=True):
        when, who = sample["timestamp"], (sample["user_id"], sample["item_id"])
        earlier = sum(1 for t in times[sample["user_id"]] if t < when)
        if earlier != sample["n_before"]:
            wrong.append(f"{who} at {when}: n_before is {sample['n_before']}, but {earlier} rows are earlier")
        for name, feature in snapshot.features.items():
            rows = known[name].get(sample[f"{feature.entity}_id"], [])
            past = [row for row in rows if row[0] < when and (not known_at or row[2] < when)]
            expected = max(past, default=(EARLIEST, 0, 0, -1), key=lambda row: row[:2])[3]
            if sample[f"{name}_row"] != expected:
                wrong.append(f"{who} at {when}: {name} row is {sample[f'{name}_row']}, but {expected} was known")
    return len(samples), wrong
