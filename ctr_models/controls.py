"""Would the gain be there if the text said nothing? The controls that every claim about text has to pass."""

from dataclasses import replace

import numpy as np

from storage.features import FeatureSet


def permuted(feature: FeatureSet, *, seed: int = 0) -> FeatureSet:
    """The same vectors, each given to another text's owner: whoever has a text has one still, but a stranger's.

    Same matrix, same width, same moments in time; only the meaning is gone (LLM2Sequential, arXiv 2402.01339, uses
    it on item embeddings). A gain that survives it does not come from what the texts say.
    """
    return replace(feature, vectors=permuted_rows(feature.vectors, seed=seed))


def random_like(feature: FeatureSet, *, seed: int = 0) -> FeatureSet:
    """Gaussian vectors with the mean and covariance of the real ones, not of unit length: their geometry, no content.

    A gain that survives it comes from having more inputs, not from text.
    """
    return replace(feature, vectors=gaussian_rows(feature.vectors, seed=seed))


def permuted_rows(vectors: np.ndarray, *, seed: int) -> np.ndarray:
    """The rows of [N, D] in random order."""
    return vectors[np.random.default_rng(seed).permutation(len(vectors))]


def gaussian_rows(vectors: np.ndarray, *, seed: int) -> np.ndarray:
    """As many Gaussian rows [N, D] with the rows' mean and covariance, of the same type."""
    known = vectors.astype(np.float64)
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(known, rowvar=False, bias=True)))
    drawn = np.random.default_rng(seed).normal(size=known.shape) * np.sqrt(np.maximum(variance, 0))
    return (drawn @ axes.T + known.mean(axis=0)).astype(vectors.dtype)
