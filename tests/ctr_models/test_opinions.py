"""How much more than usual: by the book, with what is not known, and read back equal."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ctr_models.opinions import PRIOR_RATINGS, Usual, fit_usual
from ctr_models.vocabulary import Vocabulary, fit_vocabulary
from storage.errors import StoreError
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import World, first_ratings


def training_rows(snapshot: Snapshot) -> pl.DataFrame:
    return snapshot.samples.filter(pl.col("split") == "train")


def test_means_are_of_training_rows_alone_and_drawn_towards_the_mean_of_all(world: World) -> None:
    snapshot = world()
    train = training_rows(snapshot)
    usual = fit_usual(snapshot.dataset, train)
    learned = set(train["source_row"])
    rows = [row for row in first_ratings(snapshot) if row["source_row"] in learned]
    given = [row["rating"] for row in rows if row["item_id"] == "i3"]
    overall = np.mean([row["rating"] for row in rows])

    assert len(given) < len(train.filter(pl.col("item_id") == "i3"))
    mean = (sum(given) + PRIOR_RATINGS * overall) / (len(given) + PRIOR_RATINGS)
    assert usual.means[usual.items.index("i3")] == pytest.approx(mean)
    assert usual.mean == pytest.approx(overall)


def test_opinions_of_training_rows_have_a_mean_square_of_one(world: World) -> None:
    snapshot = world()
    train = training_rows(snapshot)
    learned = set(train["source_row"])
    rows = pl.DataFrame([row for row in first_ratings(snapshot) if row["source_row"] in learned])
    opinions = fit_usual(snapshot.dataset, train).opinions(rows["item_id"], rows["rating"])

    assert np.mean(opinions**2) == pytest.approx(1, rel=1e-4)


def test_a_label_is_not_told_by_what_an_earlier_rating_of_its_item_is_compared_with(world: World) -> None:
    """Whatever the label's own rating, the opinion that its user had of the item before is the same."""
    snapshot = world()
    first = {row["source_row"] for row in first_ratings(snapshot)}
    again = training_rows(snapshot).filter(~pl.col("source_row").is_in(first))
    interactions = snapshot.dataset.interactions
    other = pl.when(pl.col("source_row").is_in(again["source_row"].implode())).then(6 - pl.col("rating"))
    changed = replace(
        snapshot.dataset, interactions=interactions.with_columns(rating=other.otherwise("rating").cast(pl.Float32))
    )

    assert len(again) > 100
    assert fit_usual(changed, training_rows(snapshot)) == fit_usual(snapshot.dataset, training_rows(snapshot))


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
