"""A model that knows the rows is told from one that guesses well, and neither is shown who a user is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pytest

from llm_features import engines
from llm_features.engines import Completion, Request, template
from llm_features.memorisation import ROWS, SHOWN_RATINGS, Row, item_rows, probe, user_rows
from storage.errors import ConfigError
from storage.interactions import Dataset


@dataclass
class Model(engines.Engine):
    """Answers by `knows`, a function of what it is shown; asked: all that it was shown."""

    knows: Callable[[str], str]

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    @property
    def identity(self) -> Mapping[str, object]:
        return {"engine": "fake"}

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        for request in reversed(requests):
            self.asked.append(request.messages[-1]["content"].split("\n\n", 1)[1])
            yield Completion(request.key, self.knows(self.asked[-1]), "stop")


def by_heart(rows: Sequence[Row]) -> Callable[[str], str]:
    known = {row.shown: row.rest for row in rows}
    return known.__getitem__


@pytest.mark.parametrize("kind", ROWS)
def test_who_knows_the_rows_completes_them_all(kind: str, small_dataset: Dataset) -> None:
    rows = ROWS[kind](small_dataset, limit=10, seed=1)
    found = probe(rows, Model(by_heart(rows)), kind=kind, name="small", seed=0)
    assert (found.rows, found.asked, found.exact) == (kind, 10, 10)
    assert found.p < 0.01
    assert found.chance < 5


def test_who_always_says_what_is_frequent_is_as_good_as_chance() -> None:
    """Every second row ends alike, so half of the answers are right, and as many for shuffled rows."""
    rows = [Row(f"{n}::Title {n}", "::Drama" if n % 2 else f"::Genre {n}") for n in range(200)]
    found = probe(rows, Model(lambda shown: "::Drama"), kind="items", name="x", seed=0)
    assert found.exact == found.chance == 100
    assert found.p == 1.0


@pytest.mark.parametrize("said", ["{rest}", "  {rest}\nand more", "`{rest}`", "{last}{rest}", "'{last}{rest}'\n"])
def test_what_counts_as_exact(said: str, small_dataset: Dataset) -> None:
    """The rest, alone on its line or behind the part that was shown; and nothing else."""
    rows = item_rows(small_dataset, limit=5, seed=1)
    known = by_heart(rows)
    right = Model(lambda shown: said.format(rest=known(shown), last=shown))
    wrong = Model(lambda shown: said.format(rest=known(shown) + "x", last=shown))
    assert [probe(rows, model, kind="items", name="x", seed=0).exact for model in (right, wrong)] == [5, 0]


def test_rows_are_cut_behind_the_id_and_make_the_whole_again(small_dataset: Dataset) -> None:
    whole = {f"{i}::{title}::{year}" for i, title, year in small_dataset.items.iter_rows()}
    rows = item_rows(small_dataset, limit=100, seed=1)
    assert {row.shown + row.rest for row in rows} == whole
    assert all(row.rest and "::" in row.shown for row in rows)


def test_a_user_is_the_first_ratings_and_never_an_id(small_dataset: Dataset) -> None:
    renamed = small_dataset.interactions.with_columns(user_id=pl.lit("person-") + pl.col("user_id"))
    people = small_dataset.users.with_columns(user_id=pl.lit("person-") + pl.col("user_id"))
    dataset = Dataset("small", "general", "time", renamed, people, small_dataset.items)
    rows = user_rows(dataset, limit=100, seed=1)
    model = Model(by_heart(rows))
    probe(rows, model, kind="ratings", name="small", seed=0)

    assert not any("person-" in shown for shown in model.asked)
    first = renamed.sort("user_id", "timestamp", "source_row").filter(user_id="person-u0")
    lines = [f"{item}::{rating:g}" for item, rating in first.select("item_id", "rating").head(SHOWN_RATINGS + 1).rows()]
    assert Row("\n".join([*lines[:-1], ""]), lines[-1]) in rows


def test_a_rule_knows_nothing_by_heart(small_dataset: Dataset) -> None:
    rows = item_rows(small_dataset, limit=5, seed=1)
    with pytest.raises(ConfigError, match="'template' is no language model"):
        probe(rows, template.Engine(template.Config()), kind="items", name="x", seed=0)
