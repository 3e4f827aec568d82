"""Asking an LLM directly: one prompt a candidate, the same beginning for one user, answers in the order asked."""

from collections.abc import Iterator, Sequence

import polars as pl
import pytest

from llm_features import engines
from llm_features.engines import Completion, Request
from llm_features.recommenders import MAX_HISTORY, YesNo
from storage.errors import GenerationError
from storage.interactions import Dataset
from storage.schema import INTERACTIONS


class Model(engines.Engine):
    """Answers by the last digit of the candidate's title, the last request first."""

    identity = {"engine": "digits"}  # noqa: RUF012

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        for request in reversed(requests):
            digit = int(request.messages[-1]["content"].split("know: Title ")[1].split("\n")[0]) % 3
            reason = "error" if self.fails else "stop"
            yield Completion(request.key, [" Yes.", "no", "maybe"][digit], reason)


@pytest.fixture
def dataset() -> Dataset:
    """One user with 40 ratings and one with none; 50 items with $ in what is said of them."""
    rows = [("u0", f"i{n}", float(1 + n % 5), n, n) for n in range(40)]
    items = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(50)], "title": [f"Title {n}" for n in range(50)], "price": ["$cheap"] * 50}
    )
    users = pl.DataFrame({"user_id": ["u0", "u1"], "age": ["young", "old"]})
    return Dataset("d", "general", "time", pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), users, items)


def test_prompts_of_one_user_differ_in_the_candidate_alone(dataset: Dataset) -> None:
    one, two = YesNo(dataset, Model()).requests("u0", ["i45", "i46"])
    said, other = (request.messages[-1]["content"] for request in (one, two))
    history = said.split("does not know: ")[0]

    assert other.startswith(history)
    assert said[len(history) :].replace("Title 45", "Title 46") == other[len(history) :]
    assert "price: $cheap" in said
    assert "age: young" in said
    assert [f"- Title {n}: " in said for n in range(40)] == [n >= 40 - MAX_HISTORY for n in range(40)]
    assert (one.max_tokens, one.messages[0]["role"], len({one.key, two.key})) == (1, "system", 2)
    assert "u0" not in said


def test_answers_come_in_the_order_asked(dataset: Dataset) -> None:
    asked = ["i3", "i4", "i5", "i3"]

    assert YesNo(dataset, Model()).ask("u0", asked) == [True, False, None, True]
    assert YesNo(dataset, Model()).ask("u1", ["i4"]) == [False]


def test_a_prompt_that_fails_is_no_answer(dataset: Dataset) -> None:
    with pytest.raises(GenerationError, match="gave no answer"):
        YesNo(dataset, Model(fails=True)).ask("u0", ["i3"])
