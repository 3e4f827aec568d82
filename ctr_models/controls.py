"""Would the gain be there if the text said nothing? The control that every claim about text has to pass."""

from dataclasses import replace

import numpy as np

from storage.features import FeatureSet


def permuted(feature: FeatureSet, *, seed: int = 0) -> FeatureSet:
    """The same vectors, each given to another text's owner: whoever has a text has one still, but a stranger's.

    Same matrix, same width, same moments in time; only the meaning is gone (LLM2Sequential, arXiv 2402.01339, uses
    it on item embeddings). A gain that survives it does not come from what the texts say.
    """
    order = np.random.default_rng(seed).permutation(len(feature.vectors))
    return replace(feature, vectors=feature.vectors[order])
