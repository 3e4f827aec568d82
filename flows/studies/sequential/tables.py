"""What does a study say? Its table of numbers, and a line for each claim: holds, does not hold, not enough evidence."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ctr_models.sequential.evaluate import compare, slices
from ctr_models.sequential.metrics import CUTS, summary
from ctr_models.sequential.sampled import sampled_summary
from ctr_models.sequential.sequences import Sequences
from flows.studies.sequential.config import BASE, Arm, SequentialConfig
from flows.studies.tuning import Trial, best

RESULTS = {
    "protocol": pl.String,
    "model": pl.String,
    "arm": pl.String,
    "seed": pl.Int64,
    "slice": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "queries": pl.Int64,
}
CLAIMS = {
    "model": pl.String,
    "better": pl.String,
    "worse": pl.String,
    "slice": pl.String,
    "metric": pl.String,
    "base": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "queries": pl.Int64,
    "verdict": pl.String,
}
TUNING = {
    "model": pl.String,
    "arm": pl.String,
    "trial": pl.Int64,
    "options": pl.String,
    "validation": pl.Float64,
    "chosen": pl.Boolean,
}


@dataclass(frozen=True)
class Part:
    """One ranking of the test queries. arm and seed are "" and 0 for baselines and hybrids of them.

    sampled: places of the targets among sampled candidates, by name.
    """

    model: str
    arm: str
    seed: int
    ranks: np.ndarray
    top: np.ndarray
    meta: Mapping[str, Any]
    sampled: Mapping[str, np.ndarray] = field(default_factory=dict)


def results(config: SequentialConfig, data: Sequences, parts: Sequence[Part]) -> pl.DataFrame:
    """One row for each metric of each part and slice: what the paper's tables are made of."""
    asked, counts = data.queries["test"], data.counts
    rows = []
    for part in parts:
        for name, chosen in slices(data, asked, cold_at_most=config.cold_at_most).items():
            found = summary(part.ranks[chosen], part.top[chosen], asked.target[chosen], counts, n_items=data.n_items)
            for among, ranks in part.sampled.items():
                found |= sampled_summary(among, ranks[chosen], CUTS)
            rows += [
                (config.split.kind, part.model, part.arm, part.seed, name, metric, value, int(chosen.sum()))
                for metric, value in found.items()
            ]
    return _without_nan(pl.DataFrame(rows, schema=RESULTS, orient="row"))


def claims(config: SequentialConfig, data: Sequences, parts: Sequence[Part]) -> pl.DataFrame:
    """A line for each claim: text beats no text and its controls, these beat no text, order beats no order."""
    ranks: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in parts:
        ranks.setdefault((part.model, part.arm), []).append(part.ranks)
    asked, counts, rows = data.queries["test"], data.counts, []
    for model in config.models:
        for better, worse in _pairs(config):
            for name, chosen in slices(data, asked, cold_at_most=config.cold_at_most).items():
                found = compare(
                    ranks[model, better],
                    ranks[model, worse],
                    targets=asked.target,
                    counts=counts,
                    chosen=chosen,
                    metric=config.claim_metric,
                    resamples=config.resamples,
                )
                numbers = (found.base, found.difference, found.low, found.high, found.queries)
                rows.append((model, better, worse, name, config.claim_metric, *numbers, found.verdict))
    return _without_nan(pl.DataFrame(rows, schema=CLAIMS, orient="row"))


def tuning(trials: Mapping[tuple[str, str], Sequence[Trial]]) -> pl.DataFrame:
    """One row for each trial of each model in each arm: options as JSON, validation metric, whether chosen."""
    rows = [
        (model, arm, trial.number, json.dumps(trial.options), trial.value, trial is best(tried))
        for (model, arm), tried in trials.items()
        for trial in tried
    ]
    return pl.DataFrame(rows, schema=TUNING, orient="row")


def claim_line(claim: Mapping[str, Any]) -> str:
    """One claim in words: what, how much, and whether it stands."""
    part = "" if claim["slice"] == "all" else f" on {claim['slice'].replace('_', ' ')}"
    what = f"{claim['model']}: {claim['better']} beats {claim['worse']} in {claim['metric']}{part}"
    if claim["difference"] is None:
        return f"{what}: {claim['verdict']}"
    interval = f"{claim['difference']:+.4f} [{claim['low']:+.4f}, {claim['high']:+.4f}] over {claim['base']:.4f}"
    return f"{what}: {claim['verdict']} ({interval}, {claim['queries']:,} queries)"


def _pairs(config: SequentialConfig) -> Iterator[tuple[str, str]]:
    """(better, worse) arms of the claims."""
    for name, arm in config.arms.items():
        if arm.item_init is not None and arm == Arm(item_init=arm.item_init):
            yield name, BASE
            controls = [other for other, control in config.arms.items() if _controls(control, arm)]
            for control in controls:
                yield name, control
                yield control, BASE
        elif arm == Arm(histories="shuffled"):
            yield BASE, name


def _controls(control: Arm, of: Arm) -> bool:
    return control.item_init == of.item_init and control.vectors != "stored"


def _without_nan(table: pl.DataFrame) -> pl.DataFrame:
    """The same table with null for numbers that do not exist."""
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))
