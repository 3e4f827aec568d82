"""Which vectors are nearest to one? Exact search over the rows of a matrix."""

import numpy as np


def flat_index(vectors: np.ndarray):
    """A faiss index by inner product over float32 [n, dim]; n may be 0."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors):
        index.add(np.ascontiguousarray(vectors, np.float32))
    return index
