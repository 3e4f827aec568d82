"""Made-up scores with known answers get the verdict that they should; rows of a study are nested."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.studies.ctr.claims import (
    ARM_BEATS_ARM,
    CONTROL_DOES_NOTHING,
    EQUALS_ALL_ROWS,
    TEXT_BEATS_BASE,
    claim_line,
    claims,
    headlines,
    saving_line,
    savings,
    verdict,
)
from flows.studies.ctr.config import Arm, SampleEfficiencyConfig
from flows.studies.ctr.judge import Judge, Judged, bin_names
from flows.studies.ctr.rows import GUARDS, count, guard_time, subset
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import make_world

SMALL = make_world(users=20, items=30, rows=600)
TEXT = {
    "text": Arm(features=("t",)),
    "permuted": Arm(features=("t",), vectors="permuted"),
    "random": Arm(features=("t",), vectors="random"),
}
FRACTIONS = (0.1, 0.5, 1.0)
SIGNAL = {
    "base": {0.1: 0.2, 0.5: 0.7, 1.0: 1.0},  # text on half of the rows knows as much as the base on all
    "text": {0.1: 0.7, 0.5: 1.0, 1.0: 1.6},
    "permuted": {0.1: 0.2, 0.5: 0.7, 1.0: 1.0},
    "random": {0.1: 0.2, 0.5: 0.7, 1.0: 1.0},
}


def big_test(users: int, rows_each: int) -> tuple[Snapshot, np.ndarray]:
    """A snapshot with many test rows, and what they truly are."""
    random = np.random.default_rng(0)
    n = users * rows_each
    test = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{u}" for u in range(users)], rows_each),
            "item_id": [f"i{i}" for i in random.integers(0, 30, n)],
            "timestamp": 10_000 + np.arange(n),
            "label": random.integers(0, 2, n).astype(np.int8),
            "n_before": random.integers(5, 200, n).astype(np.int32),
            "split": ["test"] * n,
        }
    )
    train = SMALL.samples.filter(pl.col("split") == "train").select(test.columns)
    return replace(SMALL, samples=pl.concat([train, test])), test["label"].to_numpy()


def scores(labels: np.ndarray, signal: float, noise: np.ndarray) -> np.ndarray:
    """Probabilities that know the label so well: the same noise for everybody, as of models of one kind."""
    return (1 / (1 + np.exp(-(signal * (2 * labels - 1) + noise)))).astype(np.float32)


@pytest.fixture(scope="module")
def judged() -> dict[tuple[str, str, float], list[Judged]]:
    """Every arm and fraction with two seeds."""
    cut, labels = big_test(300, 20)
    judge, found = Judge(cold_at_most=5, resamples=200), {}
    for arm, signals in SIGNAL.items():
        for fraction in FRACTIONS:
            for seed in (0, 1):
                noise = np.random.default_rng(seed).normal(size=len(labels))
                p = scores(labels, signals[fraction], noise)
                found.setdefault(("m", arm, fraction), []).append(judge(cut, p, name=("m", arm, fraction, seed)))
    return found


def test_known_differences_get_their_verdicts(judged: dict) -> None:
    study = SampleEfficiencyConfig(fractions=FRACTIONS, seeds=(0, 1), arms=TEXT, margin=0.002)
    table = claims(study, ["m"], judged)
    everything = table.filter(slice="all").sort("fraction")

    assert everything.filter(claim=TEXT_BEATS_BASE)["verdict"].to_list() == ["holds"] * 3
    assert set(everything.filter(claim=CONTROL_DOES_NOTHING)["verdict"]) == {"holds"}
    assert everything.filter(claim=CONTROL_DOES_NOTHING)["difference"].abs().max() == 0
    equals = everything.filter(claim=EQUALS_ALL_ROWS)
    assert equals["verdict"].to_list() == ["does not hold", "holds", "holds"]
    assert savings(study, table) == [{"model": "m", "arm": "text", "fraction": 0.5, "factor": 2.0, "controlled": True}]
    assert (
        saving_line(savings(study, table)[0]) == "m: 50 % of the rows with text equal all rows without: 2 times fewer"
    )
    assert {claim["slice"] for claim in headlines(table.to_dicts())} <= {"all", "cold_items"}


def test_all_rows_alone_save_none(judged: dict) -> None:
    study = SampleEfficiencyConfig(fractions=(1.0,), seeds=(0, 1), arms=TEXT, margin=0.002)
    table = claims(study, ["m"], judged)

    assert savings(study, table) == []
    assert set(table["claim"]) == {TEXT_BEATS_BASE, CONTROL_DOES_NOTHING, ARM_BEATS_ARM}


def test_of_two_texts_the_one_named_first_is_said_to_beat_the_other(judged: dict) -> None:
    both = {**judged, **{("m", "title", fraction): judged["m", "base", fraction] for fraction in FRACTIONS}}
    arms = {**TEXT, "title": Arm(features=("title",))}
    table = claims(SampleEfficiencyConfig(fractions=FRACTIONS, seeds=(0, 1), arms=arms), ["m"], both)

    over = table.filter(claim=ARM_BEATS_ARM, slice="all").select("arm", "against", "verdict").unique()
    assert set(over.iter_rows()) == {("text", other, "holds") for other in ("title", "permuted", "random")}


def test_a_gap_in_the_sequence_ends_it(judged: dict) -> None:
    worse = {**judged, ("m", "text", 1.0): judged["m", "text", 0.1]}
    study = SampleEfficiencyConfig(fractions=FRACTIONS, seeds=(0, 1), arms={"text": TEXT["text"]}, margin=0.002)
    table = claims(study, ["m"], worse)

    assert table.filter(claim=EQUALS_ALL_ROWS).sort("fraction")["verdict"].to_list()[1] == "holds"
    saving = savings(study, table)[0]
    assert (saving["fraction"], saving["controlled"]) == (None, False)
    line = "uncontrolled: m: no smaller share of the rows with text was shown to equal all rows without"
    assert saving_line(saving) == line
    assert saving_line({**saving, "fraction": 1.0, "factor": 1.0}) == line
    assert all(claim_line(claim).startswith("uncontrolled: m: text ") for claim in table.to_dicts())


@pytest.mark.parametrize(
    ("claim", "low", "high", "says"),
    [
        (TEXT_BEATS_BASE, 0.0001, 0.01, "holds"),
        (TEXT_BEATS_BASE, -0.0001, 0.01, "not enough evidence"),
        (TEXT_BEATS_BASE, -0.01, -0.0001, "does not hold"),
        (CONTROL_DOES_NOTHING, -0.5, 0.0009, "holds"),
        (CONTROL_DOES_NOTHING, 0.0, 0.002, "not enough evidence"),
        (CONTROL_DOES_NOTHING, 0.0011, 0.002, "does not hold"),
        (EQUALS_ALL_ROWS, -0.0009, 0.1, "holds"),
        (EQUALS_ALL_ROWS, -0.0011, 0.1, "not enough evidence"),
        (EQUALS_ALL_ROWS, -0.1, -0.0011, "does not hold"),
        (TEXT_BEATS_BASE, float("nan"), float("nan"), "not enough evidence"),
    ],
)
def test_verdicts_at_their_bounds(claim: str, low: float, high: float, says: str) -> None:
    assert verdict(claim, low=low, high=high, margin=0.001) == says


def test_slices_cover_every_test_row_once(judged: dict) -> None:
    metrics = judged["m", "base", 1.0][0].metrics
    for names in (
        ["cold_items", "warm_items"],
        *(
            [f"{what}:{n}" for n in bin_names(edges)]
            for what, edges in (("item_rows", (0, 10, 100, 1000)), ("history", (10, 30, 100)))
        ),
    ):
        assert sum(metrics[name, "auc"][1] for name in names if (name, "auc") in metrics) == 6000
    assert bin_names((0, 10, 100)) == ["0", "1-10", "11-100", ">100"]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 2**31))
def test_a_smaller_share_is_part_of_every_larger_one(one: float, other: float, seed: int) -> None:
    small, large = (subset(SMALL, fraction=f, seed=seed).samples for f in sorted((one, other)))
    key = ["user_id", "source_row"]
    n_train = SMALL.samples.filter(split="train").height

    assert small.filter(split="train").join(large, on=key, how="anti").is_empty()
    assert large.filter(split="train").height == count(n_train, max(one, other))
    for part in ("validation", "test"):
        assert small.filter(split=part).equals(SMALL.samples.filter(split=part))
    assert small["timestamp"].is_sorted()


def test_another_seed_draws_other_rows_and_all_rows_are_all() -> None:
    halves = [subset(SMALL, fraction=0.5, seed=seed).samples for seed in (0, 1)]

    assert not halves[0].equals(halves[1])
    assert subset(SMALL, fraction=1.0, seed=5).samples.equals(SMALL.samples)


def test_the_guard_of_time_knows_what_stands_in_for_a_clock() -> None:
    assert len(GUARDS) == 4
    assert guard_time(SMALL) == "every row's texts are strictly older than the row"
    without = replace(SMALL, dataset=replace(SMALL.dataset, clock="position"))
    assert "there is no clock" in guard_time(without)
