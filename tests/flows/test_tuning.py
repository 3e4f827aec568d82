"""The search for options: the same for everybody, found again after a stop, and better than chance where it can be."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from flows.studies.tuning import Range, Trial, TuningConfig, best, search

SPACE = {
    "rate": Range(low=1e-4, high=1e-1, log=True),
    "blocks": Range(low=1, high=4),
    "dropout": (0.0, 0.25, 0.5),
}
FIRST = {"rate": 1e-4, "blocks": 1, "dropout": 0.5}


def value(_: int, options: Mapping[str, Any]) -> float:
    """Greatest, 0, at rate 0.01, 3 blocks and no dropout."""
    return -abs(options["rate"] - 0.01) * 10 - abs(options["blocks"] - 3) * 0.1 - options["dropout"]


def found(trials: int, seed: int = 0) -> list[Trial]:
    return search(SPACE, FIRST, trials=trials, seed=seed, evaluate=value)


def test_the_first_trial_is_what_was_configured_and_all_lie_in_the_space() -> None:
    trials = found(15)

    assert [trial.number for trial in trials] == list(range(15))
    assert trials[0].options == FIRST
    for trial in trials:
        assert set(trial.options) == set(SPACE)
        assert 1e-4 <= trial.options["rate"] <= 1e-1
        assert isinstance(trial.options["blocks"], int)
        assert 1 <= trial.options["blocks"] <= 4
        assert trial.options["dropout"] in SPACE["dropout"]
    assert best(trials).value > value(0, FIRST)


def test_a_longer_search_begins_as_a_shorter_one() -> None:
    """So does one that was stopped, and another seed searches elsewhere."""
    assert found(14)[:6] == found(6)
    assert [t.options for t in found(6, seed=1)[1:]] != [t.options for t in found(6)[1:]]


def test_it_learns_from_what_it_tried() -> None:
    """After the first ten, which are drawn blindly, trials are better on average; the best is all but the optimum."""
    values = [trial.value for trial in found(40)]

    assert sum(values[10:]) / 30 > sum(values[:10]) / 10 + 0.1
    assert max(values) > -0.02


def test_of_equal_trials_the_first_is_the_best() -> None:
    assert best([Trial(0, {}, 0.5), Trial(1, {}, 0.7), Trial(2, {}, 0.7)]).number == 1


def test_what_is_configured_must_lie_in_the_space() -> None:
    with pytest.raises(ValueError, match="rate"):
        search(SPACE, {**FIRST, "rate": 1.0}, trials=1, seed=0, evaluate=value)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"space": {"rate": {"low": 1, "high": 1}}}, "low must be less"),
        ({"space": {"rate": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"space": {"rate": []}}, "at least 1 item"),
        ({"trials": 0}, "greater than 0"),
        ({"space": {"rate": {"low": 0, "high": 1, "step": 1}}}, "allowed are low, high, log"),
    ],
)
def test_a_wrong_section_is_refused(section: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TuningConfig(**section)


def test_ranges_know_their_numbers() -> None:
    whole, real = Range(low=1, high=4), Range(low=0.0, high=1.0)

    assert [whole.holds(v) for v in (1, 4, 5, 2.5)] == [True, True, False, False]
    assert [real.holds(v) for v in (0, 0.5, 1.5, "x")] == [True, True, False, False]


def test_one_model_may_have_further_options() -> None:
    config = TuningConfig(space={"rate": (1, 2)}, models={"bert": {"hidden": (0.2, 0.5)}})

    assert set(config.of("bert")) == {"rate", "hidden"}
    assert set(config.of("sas")) == {"rate"}
