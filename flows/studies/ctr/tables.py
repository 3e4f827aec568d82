"""What does a study of CTR models say? Its tables: results, calibration, claims."""

from collections.abc import Iterator

import polars as pl

from flows.studies.ctr.claims import Judgements, claims
from flows.studies.ctr.judge import Judged
from flows.studies.ctr.plan import Plan

RESULTS = {
    "protocol": pl.String,
    "model": pl.String,
    "arm": pl.String,
    "fraction": pl.Float64,
    "train_rows": pl.Int64,
    "seed": pl.Int64,
    "slice": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "rows": pl.Int64,
}
CALIBRATION = {
    "model": pl.String,
    "arm": pl.String,
    "fraction": pl.Float64,
    "seed": pl.Int64,
    "bin": pl.Int64,
    "predicted": pl.Float64,
    "observed": pl.Float64,
    "rows": pl.Int64,
}


def tables(plan: Plan, judged: Judgements) -> dict[str, pl.DataFrame]:
    """The three tables, null where a number does not exist."""
    every = [each for found in judged.values() for each in found]
    protocol = plan.run.protocol or plan.run.split.kind
    results = [row for each in every for row in _results(protocol, each)]
    calibrations = [row for each in every for row in _calibration(each)]
    made = {
        "results": pl.DataFrame(results, schema=RESULTS, orient="row"),
        "calibration": pl.DataFrame(calibrations, schema=CALIBRATION, orient="row"),
    }
    made = {name: table.with_columns(pl.col(pl.Float64).fill_nan(None)) for name, table in made.items()}
    return {**made, "claims": claims(plan.study, plan.models, judged)}


def _results(protocol: str, each: Judged) -> Iterator[tuple]:
    for (where, metric), (value, rows) in each.metrics.items():
        yield (
            protocol,
            each.model,
            each.arm,
            each.fraction,
            each.train_rows,
            each.seed,
            where,
            metric,
            value,
            rows,
        )


def _calibration(each: Judged) -> Iterator[tuple]:
    found = each.calibration
    for place, (predicted, observed, rows) in enumerate(
        zip(found.predicted, found.observed, found.rows, strict=True), start=1
    ):
        yield each.model, each.arm, each.fraction, each.seed, place, predicted, observed, rows
