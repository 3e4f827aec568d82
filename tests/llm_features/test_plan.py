"""Who needs new text, who has it already, who is skipped; and what changes a key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_features import domains, engines, prompt_specs
from llm_features.engines import Completion, Request, template
from llm_features.facts import UserFacts
from llm_features.plan import PLAN, Plan, estimate, plan
from llm_features.prompts import PromptSpec
from llm_features.pseudonyms import pseudonym
from llm_features.tokens import ChatTokens
from llm_features.wanted import checkpoints
from storage.cache import Cache
from storage.errors import ConfigError
from storage.ingest import ingest
from storage.interactions import Dataset
from storage.schema import EARLIEST, INTERACTIONS, PROMPTS, TEXTS
from tests.llm_features.chat_models import chat_tokens

GENERAL = domains.load("general")
ITEM, USER = prompt_specs.load("item_knowledge"), prompt_specs.load("user_preference")
LIKE = {"model": "m", "revision": "r1", "chat_template": "c1", "decoding": {"temperature": 0.0, "seed": 1}}


class Model(engines.Engine):
    """Stands for a language model: it has an identity and answers with its own name."""

    def __init__(
        self, *, tokens: ChatTokens | None = None, max_model_len: int | None = None, **identity: object
    ) -> None:
        self._identity, self._tokens, self._length = {**LIKE, **identity}, tokens, max_model_len

    @property
    def identity(self) -> Mapping[str, object]:
        return self._identity

    @property
    def max_model_len(self) -> int | None:
        return self._length

    def tokens(self) -> ChatTokens | None:
        return self._tokens

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        for request in requests:
            yield Completion(request.key, f"text of {request.key}", "stop")


@dataclass
class Store:
    """The two caches of a data root, and nights on them."""

    root: Path

    @property
    def caches(self) -> dict[str, Cache]:
        return {
            "prompts_cache": Cache(self.root / "prompts", PROMPTS, key="source_hash"),
            "texts_cache": Cache(self.root / "texts", TEXTS, key="text_key"),
        }

    def plan(self, dataset: Dataset, spec: PromptSpec, engine: engines.Engine | None = None, **options: Any) -> Plan:
        domain = options.pop("domain", GENERAL)
        return plan(dataset, spec, domain, engine or Model(), **{**self.caches, **options})

    def night(
        self,
        dataset: Dataset,
        spec: PromptSpec,
        engine: engines.Engine | None = None,
        *,
        dies: bool = False,
        **options: Any,
    ) -> Plan:
        engine = engine or Model()
        planned = self.plan(dataset, spec, engine, **options)
        self.caches["prompts_cache"].append(planned.prompts)
        if not dies:
            rows = [
                (c.key, c.text, "stop", 1, 1, "{}", 0, "run") for c in engine.generate(planned.requests, in_flight=1)
            ]
            self.caches["texts_cache"].append(pl.DataFrame(rows, schema=TEXTS, orient="row"))
        return planned


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def with_rows(dataset: Dataset, *rows: tuple[str, str, float | None, int]) -> Dataset:
    """The dataset with more interactions (user, item, rating, time)."""
    start = dataset.interactions["source_row"].max()
    assert isinstance(start, int)
    more = pl.DataFrame([(*row, start + i) for i, row in enumerate(rows, 1)], schema=INTERACTIONS, orient="row")
    return replace(dataset, interactions=pl.concat([dataset.interactions, more]))


def with_value(dataset: Dataset, table: str, key: str, column: str, value: object) -> Dataset:
    """The dataset with one cell of its items or users changed."""
    frame: pl.DataFrame = getattr(dataset, table)
    changed = pl.when(pl.col(frame.columns[0]) == key).then(pl.lit(value, frame.schema[column])).otherwise(column)
    return replace(dataset, **{table: frame.with_columns(changed.alias(column))})


@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (4, {}, []),
        (5, {}, [5]),
        (100, {}, [5, 10, 20, 40, 80]),
        (12, {"first": 1}, [1, 2, 4, 8]),
        (20, {"growth": 1.5}, [5, 8, 12, 18]),
        (8, {"growth": 1.01}, [5, 6, 7, 8]),
        (3000, {"growth": 10.0}, [5, 50, 500]),
    ],
)
def test_checkpoints(n: int, options: dict, expected: list[int]) -> None:
    assert expected == checkpoints(n, **options)


@pytest.mark.parametrize("options", [{"first": 0}, {"growth": 1.0}])
def test_a_schedule_that_never_ends_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="first must be at least 1 and growth above 1"):
        checkpoints(10, **options)


@given(st.integers(0, 5000), st.integers(1, 20), st.floats(1.001, 16))
def test_every_interaction_finds_a_text_of_its_recent_past(n: int, first: int, growth: float) -> None:
    found = checkpoints(n, first=first, growth=growth)

    assert found == sorted(set(found))
    assert (found[:1] == [first]) == (n >= first)
    assert all(after <= max(before + 1, before * growth + 1) for before, after in pairwise([*found, n][: len(found)]))


def test_items_get_one_row_each(store: Store, small_dataset: Dataset) -> None:
    planned = store.plan(with_value(small_dataset, "items", "i3", "title", " \u200b"), ITEM)
    rows = planned.rows

    assert list(PLAN) == rows.columns
    assert small_dataset.items["item_id"].to_list() == rows["entity_id"].to_list()
    assert {EARLIEST} == set(rows["as_of"])
    assert {0} == set(rows["n_history"])
    assert tuple(map(planned.count, ("new", "cached", "skipped"))) == (11, 0, 1)
    skipped = rows.row(by_predicate=pl.col("entity_id") == "i3", named=True)
    assert (skipped["reason"], skipped["source_hash"], skipped["text_key"]) == ("no title", None, None)
    assert 11 == len(planned.requests) == len(planned.prompts)
    assert rows["text_key"].drop_nulls().to_list() == [request.key for request in planned.requests]
    assert "The item: Title 0\nyear: 1990" in planned.requests[0].messages[1]["content"]
    assert planned.requests[0].facts is None


def test_items_with_the_same_facts_share_one_prompt(store: Store, small_dataset: Dataset) -> None:
    twins = with_value(with_value(small_dataset, "items", "i3", "title", "Title 4"), "items", "i3", "year", 1994)
    planned = store.plan(twins, ITEM)

    assert (planned.count("new"), len(planned.requests)) == (12, 11)


def test_users_get_a_row_at_every_checkpoint(store: Store, small_dataset: Dataset) -> None:
    planned = store.plan(small_dataset, USER, max_history=7)
    expected = []
    for user in small_dataset.users["user_id"]:
        mine = small_dataset.interactions.filter(pl.col("user_id") == user)
        expected += [(user, mine["timestamp"][n - 1], n) for n in checkpoints(len(mine))]

    assert expected == planned.rows.select("entity_id", "as_of", "n_history").rows()
    assert len(expected) == len(planned.requests)


def test_no_prompt_shows_what_came_after_its_time(store: Store, small_dataset: Dataset) -> None:
    """Every rating is given a title of its own that tells when it was; half of the rows share their time."""
    rows = small_dataset.interactions.sample(fraction=1, shuffle=True, seed=1).with_columns(
        item_id=pl.format("{}:{}", "timestamp", "source_row"), timestamp=pl.col("timestamp") // 4
    )
    items = rows.select("item_id", title=pl.format("T{}.", "timestamp")).unique("item_id")
    dataset = Dataset("timed", "general", "time", rows, small_dataset.users, items)
    planned = store.plan(dataset, USER, max_history=6)
    as_of = dict(planned.rows.select("text_key", "as_of").iter_rows())
    wanted = dict(planned.rows.select("text_key", "n_history").iter_rows())

    for request in planned.requests:
        said = request.messages[1]["content"]
        shown = [int(line.split("T")[1].split(".")[0]) for line in said.split("\n") if line.startswith("- T")]
        assert sorted(shown) == shown
        assert as_of[request.key] == shown[-1]  # the newest it saw, and nothing newer
        assert min(6, wanted[request.key]) == len(shown)


def test_user_ids_never_enter_a_prompt(store: Store, small_dataset: Dataset) -> None:
    secret = {user: f"secret-{user}-id" for user in small_dataset.users["user_id"]}
    renamed = replace(
        small_dataset,
        users=small_dataset.users.with_columns(pl.col("user_id").replace_strict(secret)),
        interactions=small_dataset.interactions.with_columns(pl.col("user_id").replace_strict(secret)),
    )

    assert [r for r in store.plan(renamed, USER).requests if "secret" in str(r.messages)] == []


@pytest.mark.parametrize("spec", [ITEM, USER])
def test_an_anonymised_prompt_holds_pseudonyms_and_no_title(
    spec: PromptSpec, store: Store, small_dataset: Dataset
) -> None:
    """The same ones in both kinds of prompts and on every night, each a text of its own beside the one about titles."""
    store.night(small_dataset, spec)
    planned = store.plan(small_dataset, spec, anonymised=True)
    shown = "".join(planned.prompts["messages"])
    called = {pseudonym(item) for item in small_dataset.items["item_id"]}

    assert planned.count("cached") == 0 < planned.count("new")
    assert not any(title in shown for title in small_dataset.items["title"])
    assert {name for name in called if f"Item {name}" in shown} == called
    assert "release year: 1990" in shown or "year: 1990" in shown or spec is USER
    again = small_dataset.items.with_columns(title=pl.lit("New ") + "title")
    renamed = store.plan(replace(small_dataset, items=again), spec, anonymised=True)
    assert renamed.prompts.equals(planned.prompts)


def test_users_with_too_little_history_are_skipped_with_the_reason(store: Store, small_dataset: Dataset) -> None:
    nobody = pl.DataFrame({"user_id": ["new", "newer"], "age": ["old", None]})
    dataset = replace(small_dataset, users=pl.concat([small_dataset.users, nobody]))
    planned = store.plan(with_rows(dataset, *[("newer", "i1", 3.0, t) for t in range(4)]), USER)
    skipped = planned.rows.filter(pl.col("status") == "skipped")

    reason = "fewer than 5 interactions"
    assert [("new", None, 0, reason), ("newer", None, 4, reason)] == (
        skipped.select("entity_id", "as_of", "n_history", "reason").rows()
    )


def test_without_ratings_no_rating_is_shown(store: Store, small_dataset: Dataset) -> None:
    rows = small_dataset.interactions.with_columns(rating=pl.lit(None, pl.Float32))
    planned = store.plan(replace(small_dataset, interactions=rows), USER)

    assert [r for r in planned.requests if "rated" in r.messages[1]["content"].split("newest:")[1]] == []


@pytest.mark.parametrize("spec", [ITEM, USER], ids=["item", "user"])
def test_the_second_night_sends_nothing(store: Store, small_dataset: Dataset, spec: PromptSpec) -> None:
    first = store.night(small_dataset, spec)
    shuffled = replace(small_dataset, interactions=small_dataset.interactions.sample(fraction=1, shuffle=True, seed=9))
    second = store.night(shuffled, spec)

    assert len(first.rows) == first.count("new") == second.count("cached")
    assert (len(second.requests), len(second.prompts)) == (0, 0)
    assert first.rows.select("entity_id", "as_of", "text_key").equals(
        second.rows.select("entity_id", "as_of", "text_key")
    )


def test_a_dry_run_writes_nothing(store: Store, small_dataset: Dataset) -> None:
    store.plan(small_dataset, USER)

    assert list(store.root.iterdir()) == []


def test_one_changed_title_is_one_prompt_and_no_users(store: Store, small_dataset: Dataset) -> None:
    store.night(small_dataset, ITEM)
    store.night(small_dataset, USER)
    changed = with_value(small_dataset, "items", "i3", "title", "Another title")
    items, users = store.night(changed, ITEM), store.night(changed, USER)

    assert [request.entity_id for request in items.requests] == ["i3"]
    assert items.count("cached") == 11
    assert (0, len(users.rows)) == (len(users.requests), users.count("cached"))


def test_a_rating_costs_a_prompt_only_where_it_crosses_a_checkpoint(store: Store, small_dataset: Dataset) -> None:
    users = small_dataset.interactions.group_by("user_id").len().sort("len")
    before = users.filter(pl.col("len").is_between(11, 18))["user_id"][0]
    missing = 20 - int(users.filter(pl.col("user_id") == before)["len"][0])
    store.night(small_dataset, USER)
    late = [(before, "i1", 4.0, 1000 + t) for t in range(missing)]
    not_yet = with_rows(small_dataset, *late[:-1])
    crossing = with_rows(small_dataset, *late)

    assert len(store.night(not_yet, USER).requests) == 0
    sent = store.night(crossing, USER)
    assert [before] == [request.entity_id for request in sent.requests]
    assert [(before, 1000 + missing - 1, 20)] == (
        sent.rows.filter(pl.col("status") == "new").select("entity_id", "as_of", "n_history").rows()
    )


def test_a_new_title_reaches_users_at_their_next_checkpoint(store: Store, small_dataset: Dataset) -> None:
    store.night(small_dataset, USER)
    late = [("u0", f"i{t % 12}", 4.0, 1000 + t) for t in range(40)]
    changed = with_rows(with_value(small_dataset, "items", "i3", "title", "Another title"), *late)
    sent = store.night(changed, USER).requests

    assert sent
    assert all("Another title" in request.messages[1]["content"] for request in sent)


@pytest.mark.parametrize("tokens", [None, chat_tokens("chatml")], ids=["estimated", "tokens"])
def test_a_night_that_died_before_sending_is_sent_as_it_was_planned(
    store: Store, small_dataset: Dataset, tokens: ChatTokens | None
) -> None:
    engine = Model(tokens=tokens)
    died = store.night(small_dataset, USER, engine, dies=True)
    again = store.night(small_dataset, USER, engine)
    size = died.rows["n_prompt_tokens"].sum()

    assert died.requests == again.requests
    assert (0, len(died.rows)) == (len(again.prompts), again.count("new"))
    assert 0.9 * size <= again.rows["n_prompt_tokens"].sum() <= 1.1 * size
    assert len(store.night(small_dataset, USER, engine).requests) == 0


def test_an_over_long_history_is_shortened_and_told(store: Store, small_dataset: Dataset) -> None:
    engine = Model(tokens=chat_tokens("chatml"), max_model_len=USER.max_tokens + 1100)
    long = replace(small_dataset, items=small_dataset.items.with_columns(title=pl.col("title") + " long" * 8))
    planned = store.plan(long, USER, engine)

    assert planned.rows["shortened"].any()
    assert not planned.rows["shortened"].all()
    assert planned.count("new") == len(planned.rows)
    assert max(chat_tokens("chatml").count(request.messages) for request in planned.requests) <= 1100


def test_what_does_not_fit_is_skipped_and_the_rest_goes_on(store: Store, small_dataset: Dataset) -> None:
    tokens = chat_tokens("chatml")
    bare = tokens.count(store.plan(small_dataset, ITEM).requests[0].messages)
    engine = Model(tokens=tokens, max_model_len=ITEM.max_tokens + bare - 2)
    planned = store.plan(with_value(small_dataset, "items", "i3", "title", "日" * 100), ITEM, engine)

    assert planned.rows.filter(pl.col("status") == "skipped")["entity_id"].to_list() == ["i3"]
    assert {"does not fit the prompt budget", None} == set(planned.rows["reason"])


def test_a_model_too_short_for_the_instructions_is_a_configuration_error(store: Store, small_dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="before it names anything"):
        store.plan(small_dataset, ITEM, Model(max_model_len=100))


def test_estimate(store: Store, small_dataset: Dataset) -> None:
    planned = store.plan(small_dataset, ITEM)
    told = estimate(planned, tokens_per_second=100, prompt_price=1.0, output_price=2.0)
    free = estimate(store.plan(small_dataset, USER, template.Engine(template.Config())))

    assert (told.prompts, told.output_tokens, told.seconds) == (12, 12 * 400, 48.0)
    assert planned.rows["n_prompt_tokens"].sum() == told.prompt_tokens > 12 * 100
    assert (told.prompt_tokens + 2 * 4800) / 1e6 == pytest.approx(told.cost)
    assert (estimate(planned).seconds, estimate(planned).cost) == (None, None)
    assert (free.prompt_tokens, free.output_tokens, free.cost) == (0, 0, 0.0)
    assert free.prompts > 0


def test_facts_go_to_engines_that_read_them_and_are_part_of_their_keys(store: Store, small_dataset: Dataset) -> None:
    engine = template.Engine(template.Config())
    other = with_value(small_dataset, "items", "i3", "year", 1901)  # in no message of a user, but in the facts
    here, there = store.plan(small_dataset, USER, engine), store.plan(other, USER, engine)
    facts = here.requests[0].facts

    assert isinstance(facts, UserFacts)
    assert len(facts.history) == 5
    assert {"year"} == set(facts.history[0][0].attributes)
    assert here.rows["source_hash"].equals(there.rows["source_hash"])
    assert not here.rows["text_key"].equals(there.rows["text_key"])


def decoding(**changes: object) -> dict[str, object]:
    return {**LIKE["decoding"], **changes}  # type: ignore[dict-item]


Change = Callable[[Dataset], dict[str, Any]]
CHANGES: dict[str, tuple[PromptSpec, Change]] = {
    "prompt text": (ITEM, lambda d: {"spec": ITEM.model_copy(update={"user": ITEM.user + " Be kind."})}),
    "system text": (ITEM, lambda d: {"spec": ITEM.model_copy(update={"system": "You know $plural."})}),
    "prompt version": (ITEM, lambda d: {"spec": ITEM.model_copy(update={"version": 99})}),
    "answer length": (ITEM, lambda d: {"spec": ITEM.model_copy(update={"max_tokens": 399})}),
    "factors": (ITEM, lambda d: {"domain": GENERAL.model_copy(update={"factors": ("kind",)})}),
    "words": (ITEM, lambda d: {"domain": GENERAL.model_copy(update={"singular": "thing"})}),
    "rating words": (USER, lambda d: {"domain": GENERAL.model_copy(update={"rating": "$rating"})}),
    "model": (ITEM, lambda d: {"engine": Model(model="n")}),
    "revision": (ITEM, lambda d: {"engine": Model(revision="r2")}),
    "chat template": (ITEM, lambda d: {"engine": Model(chat_template="c2")}),
    "temperature": (ITEM, lambda d: {"engine": Model(decoding=decoding(temperature=0.7))}),
    "seed": (ITEM, lambda d: {"engine": Model(decoding=decoding(seed=2))}),
    "title": (ITEM, lambda d: {"dataset": with_value(d, "items", "i3", "title", "Another")}),
    "item attribute": (ITEM, lambda d: {"dataset": with_value(d, "items", "i3", "year", 1900)}),
    "user attribute": (USER, lambda d: {"dataset": with_value(d, "users", "u3", "age", "middle")}),
    "history: rating": (USER, lambda d: {"dataset": _edited(d, rating=pl.lit(2.5, pl.Float32))}),
    "history: item": (USER, lambda d: {"dataset": _edited(d, item_id=pl.lit("i11"))}),
    "history length": (USER, lambda d: {"max_history": 3}),
}
NO_CHANGES: dict[str, tuple[PromptSpec, Change]] = {
    "gate": (ITEM, lambda d: {"spec": ITEM.model_copy(update={"gate": ITEM.gate.model_copy(update={"min_words": 1})})}),
    "row order": (USER, lambda d: {"dataset": replace(d, interactions=d.interactions.reverse())}),
    "table order": (USER, lambda d: {"dataset": replace(d, users=d.users.reverse(), items=d.items.reverse())}),
    "dataset name": (ITEM, lambda d: {"dataset": replace(d, name="other")}),
    "domain name": (ITEM, lambda d: {"domain": GENERAL.model_copy(update={"name": "other"})}),
    "line numbers": (USER, lambda d: {"dataset": _edited(d, source_row=pl.col("source_row") * 10)}),
    "order of the identity": (ITEM, lambda d: {"engine": _backwards()}),
    "a longer model": (ITEM, lambda d: {"engine": Model(max_model_len=100_000)}),
}


def _edited(dataset: Dataset, **columns: pl.Expr) -> Dataset:
    """The dataset with columns of the third interaction of u3 changed, or of all rows where order is what changes."""
    one = (pl.col("user_id") == "u3") & (pl.int_range(pl.len()).over("user_id") == 2)
    every = "source_row" in columns
    edited = {n: e if every else pl.when(one).then(e).otherwise(n) for n, e in columns.items()}
    return replace(dataset, interactions=dataset.interactions.with_columns(**edited))


def _backwards() -> Model:
    engine = Model()
    engine._identity = dict(reversed(LIKE.items()))
    return engine


def _keys(store: Store, dataset: Dataset, spec: PromptSpec, /, **changes: Any) -> tuple[list[str], list[str]]:
    dataset, spec = changes.pop("dataset", dataset), changes.pop("spec", spec)
    rows = store.plan(dataset, spec, changes.pop("engine", None), **changes).rows
    return rows["source_hash"].to_list(), rows["text_key"].to_list()


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_a_text_changes_its_keys(store: Store, small_dataset: Dataset, what: str) -> None:
    spec, change = CHANGES[what]
    before, after = _keys(store, small_dataset, spec), _keys(store, small_dataset, spec, **change(small_dataset))

    assert set(before[0]) != set(after[0])
    assert set(before[1]) != set(after[1])


@pytest.mark.parametrize("what", NO_CHANGES)
def test_what_changes_no_text_changes_no_key(store: Store, small_dataset: Dataset, what: str) -> None:
    spec, change = NO_CHANGES[what]

    assert _keys(store, small_dataset, spec) == _keys(store, small_dataset, spec, **change(small_dataset))


def test_a_change_of_one_user_leaves_the_others_keys(store: Store, small_dataset: Dataset) -> None:
    before = store.plan(small_dataset, USER).rows
    after = store.plan(with_value(small_dataset, "users", "u3", "age", "middle"), USER).rows
    changed = before.filter(before["source_hash"] != after["source_hash"])

    assert {"u3"} == set(changed["entity_id"])


@pytest.mark.slow
@pytest.mark.realdata
def test_nights_on_ml_1m(store: Store, realdata: Path) -> None:
    """Every film and every checkpoint of every user; then nothing; then one title; then one rating."""
    dataset = ingest("movielens", {"path": realdata / "ml-1m"}).dataset
    movies = domains.load("movies")
    counts = dataset.interactions.group_by("user_id").len()
    expected = sum(len(checkpoints(n)) for n in counts["len"])

    def night(changed: Dataset) -> list[int]:
        return [len(store.night(changed, spec, domain=movies).requests) for spec in (ITEM, USER)]

    assert night(dataset) == [3883, expected]
    assert night(dataset) == [0, 0]
    assert night(with_value(dataset, "items", "1", "title", "Another (1995)")) == [1, 0]
    user, n = counts.filter(pl.col("len") == 39).row(0)
    assert night(with_rows(dataset, (user, "1", 4.0, 2**40))) == [0, 1]
    other = counts.filter(pl.col("len") == n - 1).row(0)[0]
    assert night(with_rows(dataset, (other, "1", 4.0, 2**40))) == [0, 0]
