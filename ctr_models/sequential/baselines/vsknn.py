"""V-SKNN: what came in the sessions most like this one, its newest items counting most (Ludewig and Jannach 2018).

Similarity is the dot product of the session's items, weighted by a linear decay into the past, with the items of a
training session; the nearest sessions vote for their items with their similarity ("Evaluation of Session-Based
Recommendation Algorithms", section 3.2). All training sessions are compared, none are sampled.
"""

import numpy as np
from pydantic import BaseModel, PositiveInt
from scipy.sparse import csr_matrix

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.weighting import Weighting, votes, weighted

NEEDS_TEXT = False


class Config(BaseModel, extra="forbid", frozen=True):
    """The neighbourhood."""

    neighbours: PositiveInt = 320
    weighting: Weighting = "linear"


class Model:
    """Sparse matrices: sessions by items, and their transpose."""

    def __init__(self, config: Config, data: Sequences, text: ItemText | None) -> None:
        self._config, self._n_items = config, data.n_items
        sessions = weighted("mean", data.train, data.n_items)
        sessions.sum_duplicates()
        sessions.data[:] = 1
        self._sessions, self._of_items = sessions, sessions.T.tocsr()
        self._possible = data.counts > 0

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]; -inf for items in no training session."""
        near = csr_matrix(weighted(self._config.weighting, history, self._n_items) @ self._of_items)
        scores = votes(nearest(near, self._config.neighbours), self._sessions)
        scores[:, ~self._possible] = -np.inf
        return scores


def nearest(similarity: csr_matrix, k: int) -> csr_matrix:
    """The same matrix with the k greatest positive numbers of each row; of equals the smaller column."""
    similarity.sort_indices()
    chosen, ends = [], [0]
    for row in range(len(similarity.indptr) - 1):
        places = np.arange(similarity.indptr[row], similarity.indptr[row + 1])
        places = places[similarity.data[places] > 0]
        if len(places) > k:
            places = places[np.argsort(np.negative(similarity.data[places]), kind="stable")[:k]]
        chosen.append(places)
        ends.append(ends[-1] + len(places))
    kept = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return csr_matrix((similarity.data[kept], similarity.indices[kept], ends), shape=similarity.shape)
