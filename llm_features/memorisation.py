"""Does a language model know a data set by heart? It is shown how rows begin, and their exact rest is looked for.

The probe of Di Palma et al. 2025, "Do LLMs Memorize Recommendation Datasets? A Preliminary Study on MovieLens-1M"
(arXiv 2505.10212), with a baseline: the same answers held against the rests of other rows, so that what anybody would
guess (a frequent genre, the most rated item) counts as chance. No id of a user is ever shown.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from llm_features.engines import Engine, Request
from llm_features.text import clean
from storage.errors import ConfigError
from storage.interactions import Dataset

SEPARATOR = "::"
SHOWN_RATINGS = 8
"""Ratings of a user that are shown; the next one is asked for."""
SHUFFLES = 999
"""Shuffled pairings of answers and rows that chance is told by."""
MAX_TOKENS = 64
_SYSTEM = "You know public data files and continue them exactly, character by character, as they were published."
_USER = (
    "Below is the beginning of a part of the file `{file}` of the data set {name}, whose fields are separated by `::`. "
    "Continue it where it stops: write the rest of the last line and nothing else.\n\n{shown}"
)


@dataclass(frozen=True)
class Row:
    """A row cut in two. shown: what a model sees of it (and before it); rest: what it must write, on one line."""

    shown: str
    rest: str


@dataclass(frozen=True)
class Probe:
    """What a model completed. exact: of `asked` rows. chance: exact ones of as many shuffled rows, on average.

    p: share of the shufflings, this order among them, with at least as many exact ones (a permutation test).
    """

    rows: str
    asked: int
    exact: int
    chance: float
    p: float


def item_rows(dataset: Dataset, *, limit: int, seed: int) -> list[Row]:
    """Random items as `item_id::title::attributes`, cut in half behind the id. Items without a title are left out."""
    items = dataset.items.drop_nulls("title")
    rows = []
    for values in items.sample(min(limit, len(items)), seed=seed, shuffle=True).iter_rows():
        start, *others = (clean("|".join(one) if isinstance(one, list) else str(one or "")) for one in values)
        rest = SEPARATOR.join(others)
        half = max(0, (len(start) + len(rest)) // 2 - len(start))
        rows.append(Row(f"{start}{SEPARATOR}{rest[:half]}", rest[half:]))
    return rows


def user_rows(dataset: Dataset, *, limit: int, seed: int) -> list[Row]:
    """The first `SHOWN_RATINGS` ratings of random users as `item_id::rating`, oldest first, and the one after them."""
    lines = dataset.interactions.group_by("user_id", maintain_order=True).agg(
        item=pl.col("item_id").head(SHOWN_RATINGS + 1), rating=pl.col("rating").head(SHOWN_RATINGS + 1)
    )
    lines = lines.filter(pl.col("item").list.len() > SHOWN_RATINGS)
    rows = []
    for _, items, ratings in lines.sample(min(limit, len(lines)), seed=seed, shuffle=True).iter_rows():
        said = [
            clean(item) if rating is None else f"{clean(item)}{SEPARATOR}{rating:g}"
            for item, rating in zip(items, ratings, strict=True)
        ]
        rows.append(Row("\n".join([*said[:-1], ""]), said[-1]))
    return rows


ROWS: dict[str, Callable[..., list[Row]]] = {"items": item_rows, "ratings": user_rows}
"""Kinds of rows that are asked for: as a data set's file of items, and as its file of ratings."""


def probe(rows: Sequence[Row], engine: Engine, *, kind: str, name: str, seed: int) -> Probe:
    """Ask `engine` to complete `rows` of the data set `name`; nothing is stored.

    Raises ConfigError where the engine is no language model, GenerationError where it cannot start.
    """
    if not engine.is_model:
        raise ConfigError(f"engine {engine.identity.get('engine')!r} is no language model: it knows nothing by heart")
    requests = []
    for place, row in enumerate(rows):
        said = _USER.format(file=f"{kind}.dat", name=name, shown=row.shown)
        messages = ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": said})
        key = hashlib.sha256(f"{place}\0{said}".encode()).hexdigest()
        requests.append(Request(key, "", messages, MAX_TOKENS))
    found = {one.key: one.text for one in engine.generate(requests, in_flight=256) if one.finish_reason != "error"}
    answers = [_rest(found.get(request.key, ""), row) for request, row in zip(requests, rows, strict=True)]
    rests = np.array([row.rest for row in rows], dtype=object)
    exact = _exact(answers, rests)
    rng = np.random.default_rng(seed)
    shuffled = [_exact(answers, rng.permutation(rests)) for _ in range(SHUFFLES)]
    p = (1 + sum(count >= exact for count in shuffled)) / (1 + SHUFFLES)
    return Probe(kind, len(rows), exact, float(np.mean(shuffled)), p)


def _rest(answer: str, row: Row) -> str:
    """The first line of an answer, without quotes around it, and without what was shown of the line."""
    line = answer.strip().split("\n")[0].strip("`'\" ")
    return line.removeprefix(row.shown.rsplit("\n", 1)[-1].strip()).strip()


def _exact(answers: Sequence[str], rests: np.ndarray) -> int:
    return sum(answer == rest.strip() and answer != "" for answer, rest in zip(answers, rests, strict=True))
