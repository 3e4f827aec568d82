"""What do several seeds say together? Their mean, and a 95 % interval of it where there are at least three."""

import polars as pl
from scipy.special import stdtrit

LEAST = 3
"""Seeds of an interval. Of two, t is 12.7: the interval of an AUC would reach beyond 1."""


def over_seeds(results: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """One row for each group of `by`, in the order of first appearance: `mean`, `low`, `high`, `seeds` of `value`.

    low, high: mean -+ t s / sqrt(n), with t the .975 quantile of Student's t with n - 1 degrees of freedom (Student
    1908); null for fewer than `LEAST` seeds. They speak of seeds only, not of users. Rows without a value are left out.
    """
    value = pl.col("value")
    found = results.drop_nulls("value").group_by(by, maintain_order=True)
    found = found.agg(mean=value.mean(), spread=value.std(ddof=1), seeds=pl.len())
    counts = found["seeds"].to_list()
    t = pl.Series("t", [float(stdtrit(n - 1, 0.975)) if n >= LEAST else None for n in counts], dtype=pl.Float64)
    half = pl.col("t") * pl.col("spread") / pl.col("seeds").sqrt()
    found = found.with_columns(t).with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)
    return found.drop("t", "spread")
