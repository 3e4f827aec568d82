"""How much more than usual: by the book, with what is not known, and read back equal."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ctr_models.opinions import PRIOR_RATINGS, Usual, fit_usual
from ctr_models.vocabulary import Vocabulary, fit_vocabulary
from storage.errors import StoreError
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import World


def training_rows(snapshot: Snapshot) -> pl.DataFrame:
    return snapshot.samples.filter(pl.col("split") == "train")


def test_means_are_of_training_rows_alone_and_drawn_towards_the_mean_of_all(world: World) -> None:
    snapshot = world()
    train = training_rows(snapshot)
    usual = fit_usual(snapshot.dataset, train)
    ratings = dict(snapshot.dataset.interactions.select("source_row", "rating").rows())
    given = [ratings[row] for row in train.filter(pl.col("item_id") == "i3")["source_row"]]
    overall = np.mean([ratings[row] for row in train["source_row"]])

    assert len(given) < len(snapshot.dataset.interactions.filter(pl.col("item_id") == "i3"))
    mean = (sum(given) + PRIOR_RATINGS * overall) / (len(given) + PRIOR_RATINGS)
    assert usual.means[usual.items.index("i3")] == pytest.approx(mean)
    assert usual.mean == pytest.approx(overall)


def test_opinions_of_training_rows_have_a_mean_square_of_one(world: World) -> None:
    snapshot = world()
    train = training_rows(snapshot)
    rows = snapshot.dataset.interactions.filter(pl.col("source_row").is_in(train["source_row"].implode()))
    opinions = fit_usual(snapshot.dataset, train).opinions(rows["item_id"], rows["rating"])

    assert np.mean(opinions**2) == pytest.approx(1, rel=1e-4)


def test_an_unknown_item_is_compared_with_the_mean_of_all_and_no_rating_is_no_opinion() -> None:
    usual = Usual(("a",), (4.0,), 3.0, 2.0)
    got = usual.opinions(pl.Series(["a", "new", "a"]), pl.Series([5, 5, None], dtype=pl.Float32))

    np.testing.assert_allclose(got, [0.5, 1.0, np.nan])


def test_nothing_rated_is_nothing_usual_and_equal_ratings_have_no_deviation(world: World) -> None:
    snapshot = world()
    dataset = snapshot.dataset
    for rating in (None, 4.0):
        interactions = dataset.interactions.with_columns(rating=pl.lit(rating, pl.Float32))
        usual = fit_usual(replace(dataset, interactions=interactions), training_rows(snapshot))
        got = usual.opinions(interactions["item_id"], interactions["rating"])

        assert usual.deviation == 1
        assert np.isnan(got).all() if rating is None else np.abs(got).max() < 1e-6


def test_it_is_saved_with_the_vocabulary(world: World) -> None:
    snapshot = world()
    vocabulary = fit_vocabulary(snapshot.dataset, training_rows(snapshot))
    text = vocabulary.to_json()

    assert vocabulary.usual.items
    assert Vocabulary.from_json(text) == vocabulary
    with pytest.raises(StoreError, match="not a vocabulary"):
        Vocabulary.from_json(text.replace('"deviation"', '"deviance"'))
