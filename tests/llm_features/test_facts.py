"""Facts of any attribute columns, cleaned, without what says nothing."""

import math

import polars as pl
import pytest

from llm_features.facts import attribute_lines, attributes_of, rating_scale, said
from storage.schema import ATTRIBUTE_TYPES


def test_every_type_of_attribute_is_shown() -> None:
    frame = pl.DataFrame(
        {
            "age_band": ["25-34", None, " \u200b", "a\nb"],
            "year": [1995, None, 0, -3],
            "price": [9.5, math.nan, math.inf, 10.0],
            "genres": [["Crime", "Sci-Fi"], [], [None, " ", "Drama\u202e"], None],
        },
        schema=dict(zip(("age_band", "year", "price", "genres"), ATTRIBUTE_TYPES, strict=True)),
    )
    expected = [
        ["age band: 25-34", "year: 1995", "price: 9.5", "genres: Crime, Sci-Fi"],
        [],
        ["year: 0", "genres: Drama"],
        ["age band: a b", "year: -3", "price: 10"],
    ]

    assert expected == [attribute_lines(about) for about in attributes_of(frame, frame.columns)]
    assert attributes_of(frame, []) == [{}, {}, {}, {}]


def test_a_long_list_is_bounded() -> None:
    assert len(said(tuple(f"word {i}" for i in range(1000)))) == 200


@pytest.mark.parametrize(
    ("ratings", "expected"),
    [
        ([None, None], None),
        ([], None),
        ([1.0], 1.0),
        ([0.5, 4.0], 5.0),
        ([5.0, None], 5.0),
        ([6.0], 10.0),
        ([99.0], 100.0),
        ([250.0], 250.0),
    ],
)
def test_the_scale_is_the_usual_one_that_holds_every_rating(ratings: list, expected: float | None) -> None:
    assert rating_scale(pl.Series(ratings, dtype=pl.Float32)) == expected
