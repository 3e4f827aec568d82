"""Would the gain be there without meaning, without text, without order? What every claim about text has to pass."""

from dataclasses import replace

import numpy as np

from ctr_models.controls import gaussian_rows, permuted_rows
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.sequences import Sequences


def permuted(text: ItemText, *, seed: int = 0) -> ItemText:
    """The same vectors, each given to another item: whoever has a text has one still, but a stranger's."""
    return _told(text, permuted_rows(text.vectors[text.known], seed=seed))


def random_like(text: ItemText, *, seed: int = 0) -> ItemText:
    """Gaussian vectors with the mean and covariance of the real ones: the geometry of text, and none of its content."""
    return _told(text, gaussian_rows(text.vectors[text.known], seed=seed))


def shuffled(data: Sequences, *, seed: int = 0) -> Sequences:
    """The same sequences in random order, of training and of queries; targets stay. Order must be worth something."""
    random = np.random.default_rng(seed)

    def mixed(history: Histories) -> Histories:
        owner = np.repeat(np.arange(len(history)), history.lengths)
        order = np.lexsort((random.random(len(history.item)), owner))
        return Histories(history.item[order], history.start)

    queries = {part: replace(asked, history=mixed(asked.history)) for part, asked in data.queries.items()}
    return replace(data, train=mixed(data.train), queries=queries)


def _told(text: ItemText, vectors: np.ndarray) -> ItemText:
    """The same items have a text, but these."""
    told = np.zeros_like(text.vectors)
    told[text.known] = vectors
    return ItemText(told, text.known)
