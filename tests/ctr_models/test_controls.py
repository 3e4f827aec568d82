"""Controls keep everything of a feature set but its meaning."""

import numpy as np

from ctr_models.controls import permuted, random_like
from tests.ctr_models.conftest import World


def test_permuted_vectors_are_the_same_at_other_places(world: World) -> None:
    feature = world().features["item_knowledge"]
    other = permuted(feature, seed=3)

    assert np.array_equal(np.sort(other.vectors, axis=0), np.sort(feature.vectors, axis=0))
    assert not np.array_equal(other.vectors, feature.vectors)
    assert not np.array_equal(other.vectors, permuted(feature, seed=4).vectors)
    assert other.rows.equals(feature.rows)


def test_random_vectors_have_the_mean_and_covariance_of_the_real_ones(world: World) -> None:
    feature = world(items=3000, rows=1000).features["item_knowledge"]
    other = random_like(feature, seed=0)
    mean, spread = feature.vectors.mean(axis=0), np.cov(feature.vectors, rowvar=False)

    assert (other.vectors.shape, other.vectors.dtype) == (feature.vectors.shape, feature.vectors.dtype)
    np.testing.assert_allclose(other.vectors.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(other.vectors, rowvar=False), spread, atol=0.1 * np.abs(spread).max())
