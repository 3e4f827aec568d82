"""Which options suit a model best? The same number of trials for every arm, judged by the validation rows alone.

A baseline with the options of its paper, beside a new method whose options were searched, loses for a reason that is
not the method (Ferrari Dacrema et al. 2019, "Are We Really Making Much Progress?"). So the space and the budget are
those of the study, not of an arm, and every trial is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from flows.sections import Section

Scalar = bool | int | float | str


class Range(Section):
    """Numbers between two ends: whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw the number's logarithm evenly, not the number."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, not {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range with log = true must lie above 0, not begin at {self.low}")
        return self

    def holds(self, value: Any) -> bool:
        """Whether a value lies between the ends, and is a whole number where it must be."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return isinstance(value, int if whole else int | float) and self.low <= value <= self.high


Choices = Annotated[tuple[Scalar, ...], Field(min_length=1)]
Space = dict[str, Range | Choices]
"""Option -> where its value may lie: `{ low = 1e-4, high = 1e-2, log = true }`, or a list of values."""


class TuningConfig(Section):
    """How the options of every model are chosen, in every arm alike."""

    trials: PositiveInt = 20
    """Trainings of each model in each arm; the first is the model as configured."""
    space: Space = Field(default={})
    """Options of all models."""
    models: dict[str, Space] = Field(default={})
    """Further options, of one model."""
    seed: NonNegativeInt = 0
    """Of the search, and of every trial's training."""

    def of(self, model: str) -> Space:
        """The space of one model."""
        return {**self.space, **self.models.get(model, {})}


@dataclass(frozen=True)
class Trial:
    """Options that were tried, and the validation metric they reached."""

    number: int
    options: Mapping[str, Any]
    value: float


def search(
    space: Mapping[str, Range | tuple[Scalar, ...]],
    first: Mapping[str, Any],
    *,
    trials: int,
    seed: int,
    evaluate: Callable[[int, Mapping[str, Any]], float],
) -> list[Trial]:
    """Try `first`, then what a tree-structured Parzen estimator expects most of (Bergstra et al. 2011; optuna's).

    evaluate(number, options) returns the metric, greater is better. What is tried depends on the seed, the number and
    the trials before it and on nothing else: a search that was stopped ends as if it had not been, and a longer one
    begins with the trials of a shorter. Raises ValueError where `first` is outside the space.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line a trial is said by whoever evaluates
    distributions = {name: _distribution(choice) for name, choice in space.items()}
    done: list[Trial] = []
    past: list[Any] = []
    for number in range(trials):
        options = dict(first)
        if number:
            sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(past)
            options = dict(study.ask(distributions).params)
        done.append(Trial(number, options, evaluate(number, options)))
        past.append(optuna.trial.create_trial(params=options, distributions=distributions, value=done[-1].value))
    return done


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of the greatest metric, of equals the first."""
    return max(trials, key=lambda trial: (trial.value, -trial.number))


def _distribution(choice: Range | tuple[Scalar, ...]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(choice, Range):
        return CategoricalDistribution(choice)
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return IntDistribution(choice.low, choice.high, log=choice.log)
    return FloatDistribution(choice.low, choice.high, log=choice.log)
