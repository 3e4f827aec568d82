"""What does the study of request times say? Percentiles of each arm, and why what is missing was not measured."""

from collections.abc import Sequence

import polars as pl

TIMINGS = {
    "model": pl.String,
    "arm": pl.String,  # without | with | llm
    "cache": pl.String,  # cold | warm
    "candidates": pl.Int64,
    "place": pl.Int64,  # in the order of the requests, equal for equal requests
    "milliseconds": pl.Float64,
}
RESULTS = {
    "model": pl.String,
    "arm": pl.String,
    "cache": pl.String,
    "candidates": pl.Int64,
    "requests": pl.Int64,
    "p50_ms": pl.Float64,
    "p99_ms": pl.Float64,
    "not_measured": pl.String,  # why there are no numbers
}
ARMS = pl.Enum(["without", "with", "llm"])


def results(timings: pl.DataFrame, counts: Sequence[int], llm: str, why_not: str) -> pl.DataFrame:
    """p50 and p99 of every arm, cache and number of candidates (linear between order statistics, as numpy's).

    timings: `TIMINGS`. llm: the engine that was to be asked. why_not: why it was not, else empty; a number of
    candidates that it was not asked about gets a row that says so.
    """
    ms = pl.col("milliseconds")
    found = timings.group_by("model", "arm", "cache", "candidates").agg(
        requests=pl.len().cast(pl.Int64),
        p50_ms=ms.quantile(0.5, "linear"),
        p99_ms=ms.quantile(0.99, "linear"),
        not_measured=pl.lit(None, pl.String),
    )
    left_out = [
        (llm, "llm", cache, count, 0, None, None, why_not or "not among latency.llm_candidates")
        for cache in ("cold", "warm")
        for count in counts
        if found.filter(arm="llm", cache=cache, candidates=count).is_empty()
    ]
    rows = pl.concat([found.select(list(RESULTS)), pl.DataFrame(left_out, schema=RESULTS, orient="row")])
    return rows.sort(pl.col("arm") == "llm", "model", pl.col("arm").cast(ARMS), "cache", "candidates")
