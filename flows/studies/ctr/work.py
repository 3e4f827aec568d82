"""What does a process of a study do? Fit the models of an arm on their rows, or judge the scores of one fit.

The rows are cut and encoded once for all models. Of several trials validation rows choose one, and only that one scores
the test rows, once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr_models import samples
from ctr_models.train import Progress, Run, fit, score
from flows import learning
from flows.studies.ctr.config import Arm, CTRStudyConfig
from flows.studies.ctr.judge import Judge, Judged
from flows.studies.ctr.rows import subset, view
from flows.studies.ctr.settings import Settings
from storage import files
from storage.snapshot import Snapshot

if TYPE_CHECKING:
    from flows.config import RunConfig

SCORES = "scores.parquet"
"""The file of a part: column `score`, probabilities of the test rows in the snapshot's order."""
SAY_EVERY = 0.5
"""Seconds between two words about how far a fit is."""


@dataclass(frozen=True)
class Fit:
    """One part of a study: a model in an arm, on a fraction of the training rows, with a seed.

    settings: the values to try, of which validation rows choose; key: hash of everything the scores depend on;
    looks: what an epoch of all trials costs, in rows that are learned from.
    """

    model: str
    arm: str
    fraction: float
    seed: int
    settings: tuple[Settings, ...]
    key: str
    looks: int


@dataclass(frozen=True)
class Group:
    """Fits of one arm on the same rows, which are encoded once for all of them."""

    arm: Arm
    fits: tuple[Fit, ...]

    @property
    def looks(self) -> int:
        """How long it takes, beside other groups."""
        return sum(fit.looks for fit in self.fits)


@dataclass(frozen=True)
class Looked:
    """How much of a fit is done since it was last said, in its looks."""

    rows: float


@dataclass(frozen=True)
class Fitted:
    """A fit that is done. scores: float32 probabilities of the test rows, in the snapshot's order."""

    fit: Fit
    scores: np.ndarray
    meta: dict[str, Any]


@dataclass(frozen=True)
class Judging:
    """Scores to be judged: those of a stored part. bins: whether any claim speaks of the arm's bins."""

    part: files.Version
    bins: bool


Say = Callable[[Looked | Fitted | Judged], None]


def make(context: tuple["RunConfig", CTRStudyConfig]) -> Callable[[Group | Judging, Say], None]:
    """A worker over the newest data of a run."""
    run, study = context
    taken = learning.snapshot(run)
    judge = Judge(cold_at_most=study.cold_at_most, resamples=study.resamples)

    def work(job: Group | Judging, say: Say) -> None:
        if isinstance(job, Group):
            _fit_all(job, taken, say)
            return
        said = job.part.meta
        cut = subset(taken, fraction=said["fraction"], seed=said["seed"])
        scores = files.read_table(job.part, SCORES)["score"].to_numpy()
        name = (said["model"], said["arm"], said["fraction"], said["seed"])
        say(judge(cut, scores, name=name, bins=job.bins))

    return work


def _fit_all(group: Group, taken: Snapshot, say: Say) -> None:
    one, started = group.fits[0], time.perf_counter()
    cut = subset(view(taken, group.arm, seed=one.seed), fraction=one.fraction, seed=one.seed)
    encoded = samples.encode(cut, one.settings[0].train.samples)
    encoding = time.perf_counter() - started
    for each in group.fits:
        say(_fitted(each, encoded, say, encoding=encoding / len(group.fits)))


def _fitted(part: Fit, data: samples.Samples, say: Say, *, encoding: float) -> Fitted:
    started = time.perf_counter()
    share = part.looks / len(part.settings)
    tried: dict[str, float] = {}
    best: tuple[Settings, Run] | None = None
    epochs = 0
    for settings in part.settings:
        meter = _Meter(say, share)
        run = fit(data, kind=settings.kind, options=settings.options, config=settings.train, progress=meter)
        meter.finish()
        tried[settings.trial] = max(epoch["auc"] for epoch in run.metrics["epochs"])
        epochs += len(run.metrics["epochs"])
        if best is None or tried[settings.trial] > tried[best[0].trial]:
            best = settings, run
    assert best is not None
    chosen, run = best
    scores = score(run.model, data, "test")
    meta = {
        "model": part.model,
        "arm": part.arm,
        "fraction": part.fraction,
        "seed": part.seed,
        "train_rows": len(data.split["train"]),
        "trial": chosen.trial,
        "tried": tried,
        "best_epoch": run.metrics["best_epoch"],
        "epochs": epochs,
        "samples_per_second": run.metrics["samples_per_second"],
        "looks": part.looks,
        "seconds": round(time.perf_counter() - started + encoding, 2),
    }
    return Fitted(part, scores, meta)


class _Meter:
    """Says how much of a fit is done now and then; an early end is the whole of it."""

    def __init__(self, say: Say, rows: float) -> None:
        self.say, self.rows, self.said, self.last = say, rows, 0.0, time.monotonic()

    def __call__(self, at: Progress) -> None:
        if time.monotonic() - self.last >= SAY_EVERY:
            done = (at.epoch - 1 + at.batch / at.batches) / at.epochs * self.rows
            self.say(Looked(done - self.said))
            self.said, self.last = done, time.monotonic()

    def finish(self) -> None:
        """The fit is over."""
        self.say(Looked(self.rows - self.said))
