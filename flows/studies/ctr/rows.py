"""Which rows does a fit learn from, and what does its arm show of them? Nested shares of the training rows.

One permutation of the training rows a seed: the rows of a small fraction are among those of every larger one, and they
are the same for every arm and every model. Everything that is fitted (vocabulary, whitening, scales, which item is
cold) is fitted on these rows. Two things stay whole at every fraction, and are the same for every arm: the history that
a row shows, since what a user did is a feature of the row and no label; and the validation rows, which choose.
"""

import numpy as np
import polars as pl

from ctr_models.controls import permuted, random_like
from flows.audits import Audited
from flows.audits.joins import (
    text_from_the_future,
    text_of_somebody_else,
    text_of_the_label_instant,
    text_that_saw_more_than_the_history,
)
from flows.studies.ctr.config import Arm
from storage.errors import StoreError
from storage.snapshot import Snapshot

CONTROLS = {"permuted": permuted, "random": random_like}
GUARDS = (
    text_of_somebody_else,
    text_of_the_label_instant,
    text_from_the_future,
    text_that_saw_more_than_the_history,
)


def count(rows: int, fraction: float) -> int:
    """How many of so many training rows a fraction means: rounded, and one at least."""
    return max(1, round(rows * fraction))


def subset(snapshot: Snapshot, *, fraction: float, seed: int) -> Snapshot:
    """The snapshot with a share of its training rows; all validation and test rows; rows keep their order."""
    places = np.flatnonzero((snapshot.samples["split"] == "train").to_numpy())
    order = np.random.default_rng(seed).permutation(places)
    kept = np.ones(len(snapshot.samples), bool)
    kept[order[count(len(places), fraction) :]] = False
    lineage = {**snapshot.lineage, "subset": {"fraction": fraction, "seed": seed}}
    return Snapshot(snapshot.dataset, snapshot.samples.filter(pl.Series(kept)), snapshot.features, lineage)


def view(snapshot: Snapshot, arm: Arm, *, seed: int) -> Snapshot:
    """The snapshot with the feature sets of an arm, and the vectors that the arm gives them.

    Another seed is another draw of the controls. Raises StoreError where a feature set was never published.
    """
    if missing := [name for name in arm.features if name not in snapshot.features]:
        raise StoreError(f"feature set {missing[0]!r} has no version yet; run `nightshift generate` first")
    chosen = {name: snapshot.features[name] for name in arm.features}
    if arm.vectors != "stored":
        chosen = {name: CONTROLS[arm.vectors](feature, seed=seed) for name, feature in chosen.items()}
    made_from = snapshot.lineage["features"]
    assert isinstance(made_from, dict)
    lineage = {**snapshot.lineage, "features": {name: made_from[name] for name in arm.features}}
    return Snapshot(snapshot.dataset, snapshot.samples, chosen, lineage)


def guard_time(snapshot: Snapshot) -> str:
    """Say what "older" means here, once no row reads a text that is not strictly older than the row itself.

    Every row is looked at. Raises StoreError naming the feature set and the first row that is wrong.
    """
    audited = Audited(snapshot, pl.DataFrame(), {}, time_split=False)
    for check in GUARDS:
        for said in check(audited):
            raise StoreError(f"a text is not older than the row that reads it ({check.__name__}): {said}")
    if snapshot.dataset.clock == "time":
        return "every row's texts are strictly older than the row"
    return "there is no clock: every row's texts are from strictly earlier in its user's own order, which stands in"
