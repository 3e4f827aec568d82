"""What would a study of CTR models cost? Its fits, those that are stored, and minutes for the others.

Nothing is fitted and nothing is timed: what is to come is as fast as what was fitted before, with whatever values.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ctr_models import runs
from flows.learning import run_name
from flows.studies.ctr.plan import Plan
from flows.studies.ctr.rows import count
from flows.studies.ctr.work import Fit
from flows.studies.parts import newest
from storage import files


def estimate(plan: Plan, *, processes: int) -> dict[str, Any]:
    """How many fits, how many are stored, rows times epochs at most, and minutes in so many processes.

    minutes: with as many epochs as the stored parts of a model and fraction needed on average, else with all of them;
    None where nothing tells the speed.
    """
    missing = plan.missing()
    every = (newest(plan.run.store.root, plan.part_name(fit)) for fit in plan.fits.values())
    past = [part.meta for part in every if part is not None]
    paces = [_pace(plan, past, fit) for fit in missing]
    known = [pace for pace in paces if pace is not None]
    seconds = None
    if known or not missing:
        typical = statistics.median(known) if known else 0.0
        seconds = sum((pace or typical) * _row_epochs(plan, fit) for pace, fit in zip(paces, missing, strict=True))
    return {
        "fits": sum(len(fit.settings) for fit in plan.fits.values()),
        "stored": sum(len(plan.fits[place].settings) for place in plan.parts),
        "row_epochs": sum(
            count(plan.rows["train"], fit.fraction) * each.train.epochs for fit in missing for each in fit.settings
        ),
        "processes": processes,
        "minutes": None if seconds is None else round(seconds / 60 / processes, 1),
    }


def _pace(plan: Plan, past: Sequence[Mapping[str, Any]], fit: Fit) -> float | None:
    """Seconds a row and epoch: of parts of the same model, best at the same fraction, else of its runs, else of others.

    Small fractions have pace of their own: their batches may be smaller, and encoding weighs more.
    """
    of_model = [part for part in past if part["model"] == fit.model]
    same = [part for part in of_model if part["fraction"] == fit.fraction]
    for arm in ("without", "with") if not of_model else ():
        if run := files.latest(runs.folder(plan.run.store.root, run_name(fit.model, arm))):
            return 1 / float(run.meta["metrics"]["samples_per_second"])
    seen = same or of_model or past
    return statistics.median(part["seconds"] / _looks(part) for part in seen) if seen else None


def _looks(part: Mapping[str, Any]) -> float:
    """Rows times epochs that a stored part took, over all its trials."""
    return part["looks"] / len(part["tried"]) * part["epochs"]


def _row_epochs(plan: Plan, fit: Fit) -> float:
    """Rows times epochs that a fit will take, over all its trials."""
    needed = [
        part.meta["epochs"] / len(part.meta["tried"])
        for (model, _, fraction, _), part in plan.parts.items()
        if (model, fraction) == (fit.model, fit.fraction)
    ]
    epochs = len(fit.settings) * statistics.mean(needed) if needed else sum(s.train.epochs for s in fit.settings)
    return fit.looks / len(fit.settings) * epochs
