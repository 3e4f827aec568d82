"""Would the gain be there without meaning, without text, without order? What every claim about text has to pass."""

from dataclasses import replace

import numpy as np

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.sequences import Sequences


def permuted(text: ItemText, *, seed: int = 0) -> ItemText:
    """The same vectors, each given to another item: whoever has a text has one still, but a stranger's."""
    told = np.flatnonzero(text.known)
    vectors = text.vectors.copy()
    vectors[told] = text.vectors[np.random.default_rng(seed).permutation(told)]
    return ItemText(vectors, text.known)


def random_like(text: ItemText, *, seed: int = 0) -> ItemText:
    """Gaussian vectors with the mean and covariance of the real ones: the geometry of text, and none of its content."""
    told = text.vectors[text.known].astype(np.float64)
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(told, rowvar=False, bias=True)))
    drawn = np.random.default_rng(seed).normal(size=told.shape) * np.sqrt(np.maximum(variance, 0))
    vectors = np.zeros_like(text.vectors)
    vectors[text.known] = drawn @ axes.T + told.mean(axis=0)
    return ItemText(vectors, text.known)


def shuffled(data: Sequences, *, seed: int = 0) -> Sequences:
    """The same sequences in random order, of training and of queries; targets stay. Order must be worth something."""
    random = np.random.default_rng(seed)

    def mixed(history: Histories) -> Histories:
        owner = np.repeat(np.arange(len(history)), history.lengths)
        order = np.lexsort((random.random(len(history.item)), owner))
        return Histories(history.item[order], history.start)

    queries = {part: replace(asked, history=mixed(asked.history)) for part, asked in data.queries.items()}
    return replace(data, train=mixed(data.train), queries=queries)
