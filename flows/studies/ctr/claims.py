"""Which claims does a study make, and do they stand? A line for each, with its interval and its verdict.

Differences are of AUC, paired by seed and by resample of the users, each with its own central 95 % interval: of many
claims some stand or fall by chance. Verdicts:

    text beats base, arm beats arm             holds: low > 0;  does not hold: high < 0
    control does nothing                       holds: high < margin;  does not hold: low > margin
    text at x % equals all rows without        holds: low > -margin;  does not hold: high < -margin

and not enough evidence between them. The last is a one-sided test of non-inferiority at 2.5 % (ICH E9 1998,
"Statistical Principles for Clinical Trials", section 3.3.2; Wellek 2010, "Testing Statistical Hypotheses of Equivalence
and Noninferiority", section 2.2), its margin written down before the study is run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ctr_models.bootstrap import interval
from flows.studies.ctr.config import BASE, CTRStudyConfig
from flows.studies.ctr.judge import CLAIMED, Judged

TEXT_BEATS_BASE = "text beats base"
CONTROL_DOES_NOTHING = "control does nothing"
EQUALS_ALL_ROWS = "text at x % equals all rows without"
ARM_BEATS_ARM = "arm beats arm"

CLAIMS = {
    "claim": pl.String,
    "model": pl.String,
    "arm": pl.String,
    "against": pl.String,
    "fraction": pl.Float64,
    "slice": pl.String,
    "metric": pl.String,
    "base": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "rows": pl.Int64,
    "margin": pl.Float64,
    "verdict": pl.String,
    "controlled": pl.Boolean,
}
"""controlled: the text arm stands beside the same arm with permuted and with random vectors."""

Judgements = Mapping[tuple[str, str, float], Sequence[Judged]]
"""(model, arm, fraction) -> what was found with each seed, in the same order everywhere."""


def claims(study: CTRStudyConfig, models: Sequence[str], judged: Judgements) -> pl.DataFrame:
    """Every claim of the study, in the order of models, claims, arms, fractions and slices."""
    rows = [_claim(study, judged, model, *said) for model in models for said in _said(study, judged, model)]
    table = pl.DataFrame(rows, schema=CLAIMS, orient="row")
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def savings(study: CTRStudyConfig, table: pl.DataFrame) -> list[dict[str, Any]]:
    """For each model and text arm the smallest fraction that equals all rows without text, None where none does.

    Fractions are tested from all rows downwards until the first that does not hold: in a fixed sequence each test keeps
    its level (Westfall and Krishen 2001, "Optimally Weighted, Fixed Sequence and Gatekeeper Multiple Testing
    Procedures", section 2). factor: how many times fewer rows that is.
    """
    found = []
    tested = table.filter(pl.col("claim") == EQUALS_ALL_ROWS)
    for (model, arm), rows in tested.group_by("model", "arm", maintain_order=True):
        smallest = None
        for fraction, verdict in rows.sort("fraction", descending=True).select("fraction", "verdict").iter_rows():
            if verdict != "holds":
                break
            smallest = fraction
        factor = None if smallest is None else 1 / smallest
        controlled = study.is_controlled(str(arm))
        found.append({"model": model, "arm": arm, "fraction": smallest, "factor": factor, "controlled": controlled})
    return found


Said = tuple[str, str, str, float, float, str]
"""A claim: which, arm, against, fraction of the arm, fraction of the other, slice."""


def _said(study: CTRStudyConfig, judged: Judgements, model: str) -> Iterator[Said]:
    texts = [name for name, arm in study.arms.items() if arm.has_text]
    controls = [name for name, arm in study.arms.items() if arm.vectors != "stored"]
    fractions = sorted(study.fractions)
    for arm in texts:
        for fraction in fractions:
            there = dict.fromkeys(where for each in judged[model, BASE, fraction] for where in each.drawn)
            yield from ((TEXT_BEATS_BASE, arm, BASE, fraction, fraction, where) for where in there)
    for arm in controls:
        for fraction in fractions:
            yield from ((CONTROL_DOES_NOTHING, arm, BASE, fraction, fraction, where) for where in CLAIMED[:2])
    if fractions[-1] == 1 and len(fractions) > 1:  # all rows alone save none
        for arm in texts:
            yield from ((EQUALS_ALL_ROWS, arm, BASE, fraction, 1.0, "all") for fraction in fractions)
    for arm, other in study.pairs():
        for fraction in fractions:
            yield from ((ARM_BEATS_ARM, arm, other, fraction, fraction, where) for where in CLAIMED)


def _claim(
    study: CTRStudyConfig,
    judged: Judgements,
    model: str,
    claim: str,
    arm: str,
    against: str,
    fraction: float,
    of_other: float,
    where: str,
) -> tuple:
    better, worse = judged[model, arm, fraction], judged[model, against, of_other]
    margin = None if claim in (TEXT_BEATS_BASE, ARM_BEATS_ARM) else study.margin
    rows = max((each.metrics[where, "auc"][1] for each in better if (where, "auc") in each.metrics), default=0)
    base = difference = low = high = float("nan")
    if all(where in each.drawn for each in (*better, *worse)):
        point = np.array(
            [one.drawn[where][0] - other.drawn[where][0] for one, other in zip(better, worse, strict=True)]
        )
        drawn = np.stack(
            [one.drawn[where][1] - other.drawn[where][1] for one, other in zip(better, worse, strict=True)]
        )
        found = interval(point, drawn)
        difference, low, high = found.difference, found.low, found.high
        base = float(np.mean([other.drawn[where][0] for other in worse]))
    controlled = study.is_controlled(arm) and study.is_controlled(against)
    said = verdict(claim, low=low, high=high, margin=study.margin)
    return (
        claim,
        model,
        arm,
        against,
        fraction,
        where,
        "auc",
        base,
        difference,
        low,
        high,
        rows,
        margin,
        said,
        controlled,
    )


def verdict(claim: str, *, low: float, high: float, margin: float) -> str:
    """Does a claim stand whose difference has the interval [low, high]?"""
    if claim == CONTROL_DOES_NOTHING:
        holds, fails = high < margin, low > margin
    else:
        bound = -margin if claim == EQUALS_ALL_ROWS else 0
        holds, fails = low > bound, high < bound
    return "holds" if holds else "does not hold" if fails else "not enough evidence"


def claim_line(claim: Mapping[str, Any]) -> str:
    """One claim in words: what, how much, and whether it stands; "uncontrolled" first where it has no controls."""
    share = f"{100 * claim['fraction']:g} % of the rows"
    what = {
        TEXT_BEATS_BASE: f"{claim['arm']} beats {claim['against']} on {share}",
        ARM_BEATS_ARM: f"{claim['arm']} beats {claim['against']} on {share}",
        CONTROL_DOES_NOTHING: f"{claim['arm']} does nothing on {share}",
        EQUALS_ALL_ROWS: f"{claim['arm']} on {share} equals {claim['against']} on all",
    }[claim["claim"]]
    where = "" if claim["slice"] == "all" else f", {claim['slice'].replace('_', ' ')}"
    line = f"{'' if claim['controlled'] else 'uncontrolled: '}{claim['model']}: {what}{where}: {claim['verdict']}"
    if claim["low"] is None:
        return line
    within = "" if claim["margin"] is None else f", margin {claim['margin']:g}"
    interval = f"{claim['difference']:+.4f} [{claim['low']:+.4f}, {claim['high']:+.4f}] over {claim['base']:.4f}"
    return f"{line} (AUC {interval}{within}, {claim['rows']:,} rows)"


def saving_line(saving: Mapping[str, Any]) -> str:
    """How many rows text saves, in words."""
    line = f"{'' if saving['controlled'] else 'uncontrolled: '}{saving['model']}: "
    if saving["fraction"] in (None, 1):
        return f"{line}no smaller share of the rows with {saving['arm']} was shown to equal all rows without"
    share = f"{100 * saving['fraction']:g} % of the rows"
    return f"{line}{share} with {saving['arm']} equal all rows without: {saving['factor']:.3g} times fewer"


def headlines(table: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The claims that a person reads first: those on all test rows, and what text adds for cold items."""
    return [
        claim
        for claim in table
        if claim["slice"] == "all" or (claim["slice"] == "cold_items" and claim["claim"] == TEXT_BEATS_BASE)
    ]
