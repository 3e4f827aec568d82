"""Reductions are fitted on what they are given, and whitened where that is asked; controls keep all but the meaning."""

import numpy as np
import polars as pl
import pytest

from ctr_models.sequential.controls import permuted, random_like, shuffled
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.reduction import ItemInit, fit_reduction
from ctr_models.sequential.text import fit_text
from storage.errors import ConfigError
from tests.ctr_models.sequential.conftest import DIM, GROUPS, N_ITEMS, make_sequences, make_text

REDUCTIONS = ("pca", "random", "lda", "autoencoder")


def vectors(many: int = 300) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(many, DIM)) * np.linspace(1, 3, DIM) + 2


def init(**options: object) -> ItemInit:
    return ItemInit(feature_set="item_knowledge", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction_gives_the_width_and_is_the_same_again(reduction: str, whiten: bool) -> None:
    data = vectors()
    found = fit_reduction(init(reduction=reduction, whiten=whiten), data, width=4)
    reduced = found.apply(data)

    assert reduced.shape == (300, 4)
    assert np.array_equal(reduced, fit_reduction(init(reduction=reduction, whiten=whiten), data, width=4).apply(data))
    if whiten:
        np.testing.assert_allclose(np.cov(reduced, rowvar=False, bias=True), np.eye(4) / 4, atol=1e-4)
        np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-4)


def test_pca_keeps_the_most_variance_and_distances() -> None:
    data = vectors()
    every = fit_reduction(init(), data, width=DIM).apply(data)

    np.testing.assert_allclose(
        np.linalg.norm(every[:50, None] - every[None, :50], axis=2),
        np.linalg.norm(data[:50, None] - data[None, :50], axis=2),
        rtol=1e-3,
        atol=1e-3,
    )
    assert every.var(axis=0)[0] == every.var(axis=0).max()


def test_lda_separates_the_classes_it_is_given() -> None:
    data = vectors()
    classes = np.arange(300) % 3
    data[:, 0] += 5 * classes  # told by one weak direction
    reduced = fit_reduction(init(reduction="lda"), data, width=8, classes=classes).apply(data)
    means = np.array([reduced[classes == c].mean(axis=0) for c in range(3)])

    assert reduced.shape == (300, 2)  # three classes span two directions
    assert np.abs(means[0] - means[2]).max() > 3 * reduced[classes == 0].std(axis=0).max()


def test_the_autoencoder_learns_more_than_a_random_projection() -> None:
    data = np.random.default_rng(0).normal(size=(400, 2)) @ np.random.default_rng(1).normal(size=(2, DIM))

    def explained(reduction: str) -> float:
        code = fit_reduction(init(reduction=reduction), data, width=2).apply(data)
        code = np.column_stack([code, np.ones(len(code))])
        left = data - code @ np.linalg.lstsq(code, data, rcond=None)[0]
        return 1 - left.var() / data.var()

    assert explained("autoencoder") > 0.95


def test_test_items_change_nothing_of_the_map() -> None:
    data = make_sequences()
    text = make_text(data)
    moved = ItemText(text.vectors.copy(), text.known)
    moved.vectors[N_ITEMS + 1 :] *= -3  # cold items: only test can hold them
    catalogue = pl.DataFrame({"item_id": data.items[1:], "title": data.items[1:]})
    one, other = (fit_text(t, init(), data, width=4, catalogue=catalogue, encoder="e") for t in (text, moved))

    assert np.array_equal(one.reduction.components, other.reduction.components)
    assert not one.items.vectors[[0, 4]].any()  # nobody, and the item without a text


def test_classes_come_from_an_attribute() -> None:
    data = make_sequences()
    group = [f"g{n % GROUPS}" for n in range(1, data.n_items + 1)]
    catalogue = pl.DataFrame({"item_id": data.items[1:], "title": group, "kind": group})
    wanted = init(reduction="lda", classes="kind")
    text = fit_text(make_text(data), wanted, data, width=10, catalogue=catalogue, encoder="e")

    assert text.reduction.width == GROUPS - 1
    with pytest.raises(ConfigError, match="there are: kind"):
        fit_text(make_text(data), init(reduction="lda", classes="no"), data, width=4, catalogue=catalogue, encoder="e")


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(ConfigError, match="leaves no dimension"):
        fit_reduction(init(id_width=8), vectors(), width=8)
    with pytest.raises(ConfigError, match="1 training items"):
        fit_reduction(init(), vectors(1), width=8)
    with pytest.raises(ConfigError, match="all text vectors are the same"):
        fit_reduction(init(), np.ones((9, 3)), width=2)
    with pytest.raises(ValueError, match="lda"):
        init(classes="genre")


def test_permuted_gives_every_vector_to_someone_else_with_a_text() -> None:
    text = make_text(make_sequences())
    control = permuted(text, seed=1)

    assert not np.array_equal(control.vectors, text.vectors)
    assert np.array_equal(np.sort(control.vectors, axis=0), np.sort(text.vectors, axis=0))
    assert not control.vectors[~text.known].any()


def test_random_vectors_have_the_covariance_of_the_real_ones() -> None:
    text = ItemText(vectors(20_000).astype(np.float32), np.ones(20_000, bool))
    control = random_like(text, seed=1)

    np.testing.assert_allclose(np.cov(control.vectors.T), np.cov(text.vectors.T), atol=0.3)
    np.testing.assert_allclose(control.vectors.mean(axis=0), text.vectors.mean(axis=0), atol=0.1)
    assert abs(np.corrcoef(control.vectors[:, -1], text.vectors[:, -1])[0, 1]) < 0.05


def test_shuffled_keeps_items_and_targets_and_loses_the_order() -> None:
    data = make_sequences()
    control = shuffled(data, seed=1)

    assert [sorted(control.train[q]) for q in range(64)] == [sorted(data.train[q]) for q in range(64)]
    assert any(control.train[q].tolist() != data.train[q].tolist() for q in range(64))
    assert np.array_equal(control.queries["test"].target, data.queries["test"].target)
