"""When does the past end? Which labels a model learns from, is chosen by, and is judged on.

Every function takes the samples of a snapshot in any row order and returns them in the same order with the column
`split`: "train", "validation" or "test". Validation rows choose (early stopping, hyper-parameters); test rows only
judge. By default the world is cut at one moment for everybody, as it is the day a model goes live: a cut of each
user's own history lets the model learn from other users' rows that lie after the test rows (Meng et al. 2020,
"Exploring Data Splitting Strategies for the Evaluation of Recommendation Models"; Ji et al. 2023, "A Critical Study
on Data Leakage in Recommender System Offline Evaluation").
"""

import hashlib
import warnings
from typing import Annotated, Literal

import polars as pl
from pydantic import BaseModel, Field, PositiveInt, model_validator

from storage.errors import ConfigError, DataError
from storage.interactions import Clock

ORDER = ("timestamp", "user_id", "source_row")

Share = Annotated[float, Field(gt=0, lt=1)]


class LeakageWarning(UserWarning):
    """The chosen split lets a model see what it could not know on the day."""


class GlobalTime(BaseModel, extra="forbid", frozen=True):
    """Test is what happens after one moment; needs a clock."""

    kind: Literal["global_time"] = "global_time"
    test_after: int
    """UTC seconds: rows strictly later are the test rows."""
    validation: Share = 0.1
    """Share of the earlier rows, the last by time, that validate."""


class Ratio(BaseModel, extra="forbid", frozen=True):
    """Test is the last share of all rows by time; needs a clock."""

    kind: Literal["ratio"] = "ratio"
    test: Share = 0.1
    validation: Share = 0.1
    """Share of the rows before the test rows, the last by time, that validate."""


class RowCounts(BaseModel, extra="forbid", frozen=True):
    """Test is what comes after so many rows by time, as papers state their splits; needs a clock."""

    kind: Literal["row_counts"] = "row_counts"
    train: PositiveInt
    validation: PositiveInt


class Periods(BaseModel, extra="forbid", frozen=True):
    """Validation and test begin at moments of their own; needs a clock."""

    kind: Literal["periods"] = "periods"
    validation_from: int
    test_from: int
    """UTC seconds: the first moment of each part."""


class LeaveLastOut(BaseModel, extra="forbid", frozen=True):
    """Test is each user's last row, validation the one before; for data without a clock. Leaks across users."""

    kind: Literal["leave_last_out"] = "leave_last_out"


class ByUser(BaseModel, extra="forbid", frozen=True):
    """Test is all rows of some users, for questions about users never seen. Leaks time across users."""

    kind: Literal["user"] = "user"
    test: Share = 0.1
    validation: Share = 0.1
    """Share of all users that validate."""
    seed: int = 0

    @model_validator(mode="after")
    def _some_users_train(self) -> "ByUser":
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together must leave some users to train on (less than 1)")
        return self


class Sessions(BaseModel, extra="forbid", frozen=True):
    """Test is all rows of the users whose last row is latest: each user is one session (LLM2Sequential).

    Every training session is over before the first test session is. Where the clock is "position", sessions have no
    order between them: users drawn by a hash stand in, which asks the same of a model (users it never saw), but not
    of its time.
    """

    kind: Literal["sessions"] = "sessions"
    test: Share = 0.2
    validation: Share = 0.1
    """Share of the earlier sessions, the last by time, that validate."""


ByTime = GlobalTime | Ratio | RowCounts | Periods
"""Splits that cut the world at the same moments for everybody."""
Split = ByTime | LeaveLastOut | ByUser | Sessions


def assign(samples: pl.DataFrame, config: Split, *, clock: Clock) -> pl.DataFrame:
    """Split by a configuration. Raises ConfigError where it needs a clock and there is none, DataError as below."""
    if isinstance(config, ByTime) and clock != "time":
        raise ConfigError(f"split {config.kind!r} needs times, but the clock is {clock!r}; use leave_last_out or user")
    if isinstance(config, GlobalTime):
        return global_time(samples, test_after=config.test_after, validation=config.validation)
    if isinstance(config, Ratio):
        return ratio(samples, test=config.test, validation=config.validation)
    if isinstance(config, RowCounts):
        return row_counts(samples, train=config.train, validation=config.validation)
    if isinstance(config, Periods):
        return periods(samples, validation_from=config.validation_from, test_from=config.test_from)
    if isinstance(config, LeaveLastOut):
        return leave_last_out(samples)
    if isinstance(config, Sessions) and clock == "time":
        return sessions(samples, test=config.test, validation=config.validation)
    if isinstance(config, Sessions):
        warnings.warn(
            "without a clock sessions have no order between them: users drawn by a hash stand in for the last sessions",
            LeakageWarning,
            stacklevel=2,
        )
        return by_user(samples, test=config.test, validation=config.validation * (1 - config.test))
    return by_user(samples, test=config.test, validation=config.validation, seed=config.seed)


def global_time(samples: pl.DataFrame, *, test_after: int, validation: float = 0.1) -> pl.DataFrame:
    """Test: timestamp > `test_after`. Validation: the last share of the rest in the order of `ORDER`.

    Raises DataError naming the parts that are empty, with the times there are.
    """
    place = pl.int_range(pl.len())
    ordered = samples.select(*ORDER, row=place).sort(*ORDER).with_columns(place=place)
    n_past = int((ordered["timestamp"] <= test_after).sum())
    n_train = n_past - int(validation * n_past)
    return _labelled(samples, ordered, n_train, n_past)


def ratio(samples: pl.DataFrame, *, test: float = 0.1, validation: float = 0.1) -> pl.DataFrame:
    """Test: the last share of all rows in the order of `ORDER`; validation: the last share of the rest.

    Raises DataError where a part is empty.
    """
    place = pl.int_range(pl.len())
    ordered = samples.select(*ORDER, row=place).sort(*ORDER).with_columns(place=place)
    n_past = len(ordered) - int(test * len(ordered))
    return _labelled(samples, ordered, n_past - int(validation * n_past), n_past)


def row_counts(samples: pl.DataFrame, *, train: int, validation: int) -> pl.DataFrame:
    """Train: the first `train` rows in the order of `ORDER`; validation: the next `validation`; test: the others.

    Raises DataError where a part is empty.
    """
    ordered = samples.select(*ORDER, row=pl.int_range(pl.len())).sort(*ORDER).with_columns(place=pl.int_range(pl.len()))
    return _labelled(samples, ordered, train, train + validation)


def periods(samples: pl.DataFrame, *, validation_from: int, test_from: int) -> pl.DataFrame:
    """Validation: from the moment `validation_from` on; test: from `test_from` on. Raises DataError as above."""
    ordered = samples.select(*ORDER, row=pl.int_range(pl.len())).sort(*ORDER).with_columns(place=pl.int_range(pl.len()))
    starts = [int((ordered["timestamp"] < moment).sum()) for moment in (validation_from, test_from)]
    return _labelled(samples, ordered, *starts)


def leave_last_out(samples: pl.DataFrame) -> pl.DataFrame:
    """Test: the last row of each user; validation: the one before. Users with fewer than 3 rows only train.

    Warns (LeakageWarning) that it leaks. Raises DataError where no user has 3 rows.
    """
    warnings.warn(
        "leave_last_out leaks across users: a model trains on rows of other users that lie after a user's test row, "
        "so it knows what will be popular; where there are times, use global_time",
        LeakageWarning,
        stacklevel=2,
    )
    place = pl.int_range(pl.len())
    ordered = samples.select(*ORDER, row=place).sort("user_id", "timestamp", "source_row")
    from_last = pl.len().over("user_id") - 1 - place.over("user_id")
    enough = pl.len().over("user_id") >= 3
    ordered = ordered.with_columns(
        split=pl.when(enough & (from_last == 0))
        .then(pl.lit("test"))
        .when(enough & (from_last == 1))
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
    return _none_empty(samples.with_columns(split=ordered.sort("row")["split"]))


def sessions(samples: pl.DataFrame, *, test: float = 0.2, validation: float = 0.1) -> pl.DataFrame:
    """Test: all rows of the last share of the users by (time of the last row, user_id); validation: of the rest.

    "Last 20 % of sessions" of Harte et al. 2023 (arXiv 2309.09261), a session being all rows of a user. Raises
    DataError where a part is empty.
    """
    users = samples.group_by("user_id").agg(pl.col("timestamp").max()).sort("timestamp", "user_id")
    n_past = len(users) - int(test * len(users))
    n_train = n_past - int(validation * n_past)
    parts = ["train"] * n_train + ["validation"] * (n_past - n_train) + ["test"] * (len(users) - n_past)
    users = users.select("user_id", split=pl.Series(parts, dtype=pl.String))
    return _none_empty(samples.join(users, on="user_id", how="left", maintain_order="left"))


def by_user(samples: pl.DataFrame, *, test: float = 0.1, validation: float = 0.1, seed: int = 0) -> pl.DataFrame:
    """Test and validation: all rows of a share of the users each, drawn by a hash of `seed` and the user's id.

    A user keeps its part when others come or go. Raises DataError where a part is empty.
    """
    users = samples.select(pl.col("user_id").unique().sort())
    draws = [int(hashlib.sha256(f"{seed}:{user}".encode()).hexdigest()[:13], 16) / 16**13 for user in users["user_id"]]
    parts = ["test" if d < test else "validation" if d < test + validation else "train" for d in draws]
    users = users.with_columns(split=pl.Series(parts, dtype=pl.String))
    return _none_empty(samples.join(users, on="user_id", how="left", maintain_order="left"))


def _labelled(samples: pl.DataFrame, ordered: pl.DataFrame, n_train: int, n_past: int) -> pl.DataFrame:
    """`samples` with the first `n_train` rows of `ordered` as train, those up to `n_past` as validation."""
    part = (
        pl.when(pl.col("place") < n_train)
        .then(pl.lit("train"))
        .when(pl.col("place") < n_past)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    return _none_empty(samples.with_columns(split=ordered.with_columns(split=part).sort("row")["split"]))


def _none_empty(samples: pl.DataFrame) -> pl.DataFrame:
    there = set(samples["split"].unique())
    if empty := [part for part in ("train", "validation", "test") if part not in there]:
        first, last = samples["timestamp"].min(), samples["timestamp"].max()
        raise DataError(
            f"the split leaves no {' and no '.join(empty)} rows: there are {len(samples):,} rows of "
            f"{samples['user_id'].n_unique():,} users from time {first} to {last}"
        )
    return samples
