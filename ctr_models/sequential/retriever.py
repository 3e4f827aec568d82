"""Which items may come next, out of the whole catalogue? Candidates of a trained sequential run; no LLM anywhere.

A ranking model can then order them by everything it knows of user and item: retrieval and ranking are two models.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ctr_models.nearest import flat_index
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.text import item_vectors, reduced
from ctr_models.sequential.train import Run
from ctr_models.train import cpu_threads
from storage.errors import StoreError
from storage.features import FeatureSet

CANDIDATES = 150
"""Items that are handed on to a ranking model."""


class Retriever:
    """A run over a catalogue: item ids of a history in, item ids of candidates out.

    Items that the run never saw can be retrieved where they have a text of the feature set that the run started from.
    """

    def __init__(self, run: Run, catalogue: pl.Series, feature: FeatureSet | None = None) -> None:
        """catalogue: ids of all items there are now; feature: needed where the run starts from text.

        Raises StoreError where that feature set is missing or another encoder made it.
        """
        new = catalogue.filter(~catalogue.is_in(pl.Series(run.items).implode())).sort()
        ids = pl.concat([pl.Series(run.items, dtype=pl.String), new])
        cold = None
        if run.init is not None and run.reduction is not None:
            if feature is None or feature.name != run.init.feature_set:
                raise StoreError(f"the run needs feature set {run.init.feature_set!r}, which was not given")
            if feature.encoder != run.encoder:
                raise StoreError(
                    f"feature set {feature.name!r} was encoded by {feature.encoder}, but the run was trained on "
                    f"vectors of {run.encoder}; train again, or encode with the same encoder"
                )
            cold = reduced(item_vectors(feature, ids), run.reduction)
        self._ids = ids.to_numpy()
        self._numbers = {item: number for number, item in enumerate(self._ids) if number}
        self._scorer = ModelScorer(run.model, len(ids) - 1, cold)
        there = np.isin(self._ids, catalogue.to_numpy())
        self._indexed = np.flatnonzero(self._scorer.recommendable & there)
        self._index = flat_index(self._scorer.table_VE.numpy()[self._indexed])

    def candidates(self, history: Sequence[str], n: int) -> list[str]:
        """At most `n` item ids the history does not hold, best first; none where the run knows no item of it.

        history: item ids, oldest first; ids the run has no vector for are passed over.
        """
        known = [self._numbers[item] for item in history if item in self._numbers]
        usable = [number for number in known if self._scorer.recommendable[number]]
        if not usable or not len(self._indexed):
            return []
        with cpu_threads(1):  # one history is read before a second thread has been woken
            query = self._scorer.queries(Histories.of([usable]))
        many = min(len(self._indexed), n + len(set(usable)))
        found = self._indexed[self._index.search(query, many)[1][0]]
        return [str(self._ids[number]) for number in found if number not in set(known)][:n]
