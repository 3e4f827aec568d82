"""What would a study of sequential models cost? Its parts, those that are stored, and minutes for the others.

Writes nothing. A few batches and rankings of each model are timed, as it is configured and without text: in processor
seconds shared by the threads that train, which is what they take on this machine when nothing else is running.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ctr_models.sequential.hybrids import parts_of
from ctr_models.sequential.sequences import PARTS
from ctr_models.sequential.train import fit
from ctr_models.train import cpu_threads
from flows.config import RunConfig
from flows.studies.parts import stored
from flows.studies.sequential.config import BASE
from flows.studies.sequential.study import TUNED_BY, Planned, Study
from storage import files

BATCHES = 4
"""Batches that are timed."""
QUERIES = 512
"""Queries that are ranked to time ranking."""


class _NotStored(LookupError):
    """A trial that has yet to be made: what the search tries after it is not known."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an epoch of training, of an evaluation after it, and of ranking the test queries once."""

    epoch: float
    evaluation: float
    test: float


def estimate(config: RunConfig) -> dict[str, Any]:
    """How many `parts` and `trials` there are to be, how many are stored, and `minutes` for the others.

    minutes: [with the epochs that stored trials and parts needed on average (None where there are none), at most].
    Hybrids and baselines are not counted in minutes: they are not trained. Raises as `Study`.
    """
    study = Study(config)
    budget = study.config.tuning.trials if study.config.tuning else 0
    pairs = [(model, arm) for model in study.config.models for arm in study.arms]
    tried = {pair: _stored_trials(study, *pair) if budget else [] for pair in pairs}
    complete = {pair for pair in pairs if len(tried[pair]) == budget}
    parts = {part.name: (part, _stored_part(study, part, complete)) for part in study.planned()}
    lacking = [part for part, there in parts.values() if there is None and part.model in study.config.models]
    trained = [model for (model, arm), there in tried.items() for _ in range(budget - len(there))]
    of_trials = study.config.tuning.seed if study.config.tuning else None  # with this seed the best trial is taken
    trained += [part.model for part in lacking if part.seed != of_trials]
    tested = [part.model for part in lacking]
    paces = {model: _pace(study, model) for model in dict.fromkeys([*trained, *tested])}
    done = [there for _, there in parts.values() if there is not None and "best_epoch" in there.meta]
    needed = [one.meta["best_epoch"] for one in [*done, *(trial for there in tried.values() for trial in there)]]
    train, likely = study.config.train, None
    if needed:  # epochs up to the best one, and those that showed that none was better
        likely = min(train.epochs, sum(needed) / len(needed) + train.patience * train.evaluate_every)
    return {
        "parts": len(parts),
        "parts_stored": sum(there is not None for _, there in parts.values()),
        "trials": budget * len(pairs),
        "trials_stored": sum(len(there) for there in tried.values()),
        "seconds_per_epoch": {model: round(pace.epoch + pace.evaluation, 1) for model, pace in paces.items()},
        "minutes": [_minutes(study, trained, tested, paces, each) for each in (likely, train.epochs)],
    }


def _minutes(
    study: Study, trained: Sequence[str], tested: Sequence[str], paces: Mapping[str, Pace], epochs: float | None
) -> float | None:
    if epochs is None:
        return None
    often = epochs / study.config.train.evaluate_every
    seconds = sum(epochs * paces[model].epoch + often * paces[model].evaluation for model in trained)
    return round((seconds + sum(paces[model].test for model in tested)) / 60, 1)


def _stored_trials(study: Study, model: str, arm: str) -> list[files.Version]:
    """The stored trials of a model in an arm, from the first to the one before the first that is not stored."""
    found: list[files.Version] = []

    def evaluate(number: int, options: Mapping[str, Any]) -> float:
        name, key, _ = study.trial_part(model, arm, number, options)
        part = stored(study.made.root, name, key)
        if part is None:
            raise _NotStored
        found.append(part)
        return float(part.meta[TUNED_BY])

    try:
        study.search(model, arm, evaluate)
    except _NotStored:
        return found
    return found


def _stored_part(study: Study, part: Planned, complete: set[tuple[str, str]]) -> files.Version | None:
    """A part where it is there; it is not where its options, or its models' options, are still to be searched for."""
    if part.model in study.config.models:
        needs = {(part.model, part.arm)}
    else:
        config = study.config.hybrids.get(part.model)
        needs = {(name, BASE) for name in parts_of(config) if name in study.config.models} if config else set()
    return stored(study.made.root, part.name, study.key(part)) if needs <= complete else None


def _pace(study: Study, model: str) -> Pace:
    data, train = study.data, study.config.train
    able = np.flatnonzero(data.train.lengths > 1)
    some = np.random.default_rng(0).permutation(able)[: BATCHES * train.batch_size]
    asked = {part: data.queries[part].sample(QUERIES) for part in PARTS}
    few = replace(data, train=data.train.take(some), queries=asked)
    section, marks = study.config.models[model], list[float]()
    once = train.model_copy(update={"epochs": 1, "evaluate_every": 1, "validation_queries": None})
    with cpu_threads(train.threads):
        for _ in ("the first time warms up", "the second counts"):
            marks[:] = [time.process_time()]
            fit(
                few,
                kind=section.kind,
                options=section.options,  # type: ignore[arg-type]
                config=once,
                progress=lambda _: marks.append(time.process_time()),
            )
        ended = time.process_time()
        started, *_, trained = marks
        threads = torch.get_num_threads()
    sequence, query = (trained - started) / len(some), (ended - trained) / len(asked["validation"])
    judged = len(data.queries["validation"].sample(train.validation_queries))
    seconds = (sequence * len(able), query * judged, query * len(data.queries["test"]))
    return Pace(*(each / threads for each in seconds))
