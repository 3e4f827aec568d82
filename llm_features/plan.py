"""Who needs new text, who has it already, and who is skipped and why? Planning writes nothing and starts no engine."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from llm_features import pseudonyms
from llm_features.domains import Domain
from llm_features.engines import Engine, Request
from llm_features.facts import Facts, ItemFacts
from llm_features.prompts import PromptSpec, Renderer, estimate_tokens, prompt_limit
from llm_features.wanted import ItemRows, UserRows
from storage.cache import Cache
from storage.interactions import Dataset
from storage.schema import PROMPTS, Schema

PLAN: Schema = {
    "entity_id": pl.String,
    "as_of": pl.Int64,
    "n_history": pl.Int32,
    "source_hash": pl.String,
    "text_key": pl.String,
    "status": pl.String,  # new | cached | skipped
    "reason": pl.String,  # why it is skipped
    "n_prompt_tokens": pl.Int32,  # where the status is new
    "shortened": pl.Boolean,  # not all facts had room; null where the prompt was rendered on another night
}
_WRITTEN: Schema = {**PROMPTS, "n_prompt_tokens": pl.Int32, "shortened": pl.Boolean}

RENDERED_AT_ONCE = 10_000
"""Entities whose facts are in memory together."""


@dataclass(frozen=True)
class Plan:
    """What one feature set needs.

    rows: columns `PLAN`, one for every row wanted. prompts: columns `schema.PROMPTS`, what the prompts cache does not
    hold yet; append it before anything is sent. requests: the prompts to send, each key once. is_model: whether a
    language model answers them.
    """

    spec: PromptSpec
    rows: pl.DataFrame
    prompts: pl.DataFrame
    requests: list[Request]
    is_model: bool

    def count(self, status: str) -> int:
        """Rows that are "new", "cached" or "skipped"."""
        return self.rows.filter(pl.col("status") == status).height


@dataclass(frozen=True)
class Estimate:
    """What sending a plan's requests takes; output tokens at most. Seconds and cost are None where no rate is known."""

    prompts: int
    prompt_tokens: int
    output_tokens: int
    seconds: float | None
    cost: float | None


def plan(
    dataset: Dataset,
    spec: PromptSpec,
    domain: Domain,
    engine: Engine,
    *,
    prompts_cache: Cache,
    texts_cache: Cache,
    first_checkpoint: int = 5,
    growth: float = 2.0,
    max_history: int = 30,
    anonymised: bool = False,
) -> Plan:
    """Compare what `spec` wants of `dataset` with what the caches hold.

    A row whose facts are known to the prompts cache keeps the key it got then, and nothing is rendered for it; where
    its text is still missing, the messages stored then are sent. anonymised: prompts show pseudonyms and no titles.
    Raises ConfigError where the instructions alone do not fit the model.
    """
    dataset = pseudonyms.anonymised(dataset, domain) if anonymised else dataset
    if spec.entity == "item":
        wanted: ItemRows | UserRows = ItemRows(dataset, domain)
    else:
        wanted = UserRows(dataset, domain, first_checkpoint=first_checkpoint, growth=growth, max_history=max_history)
    salts = [engine.salt(entity) for entity in wanted.rows["entity_id"].to_list()]
    hashes = _source_hashes(wanted, salts, spec, domain, engine, anonymised=anonymised)
    rows = wanted.rows.with_columns(pl.when(pl.col("reason").is_null()).then(hashes).alias("source_hash"))
    first = rows.with_row_index("place").drop_nulls("source_hash").unique("source_hash", keep="first")
    place_of: dict[str, int] = dict(first.sort("place").select("source_hash", "place").iter_rows())

    there = [source for source in place_of if source in prompts_cache]
    known = prompts_cache.fetch(there, columns=["source_hash", "text_key"])
    unsent = known.filter([key not in texts_cache for key in known["text_key"]])["source_hash"].to_list()
    kept = _with_tokens(prompts_cache.fetch(unsent), engine)
    missing = [place for source, place in place_of.items() if source not in prompts_cache]
    fresh = pl.DataFrame(_written(wanted, missing, hashes, salts, spec, domain, engine), schema=_WRITTEN, orient="row")

    keys = pl.concat([known, fresh.select("source_hash", "text_key")])
    sizes = pl.concat([kept, fresh]).select("source_hash", "n_prompt_tokens", "shortened")
    rows = rows.join(keys, on="source_hash", how="left", maintain_order="left")
    rows = rows.join(sizes, on="source_hash", how="left", maintain_order="left")
    unfit = pl.col("source_hash").is_not_null() & pl.col("text_key").is_null()
    rows = rows.with_columns(
        pl.when(unfit).then(pl.lit("does not fit the prompt budget")).otherwise("reason").alias("reason"),
        pl.when(unfit).then(None).otherwise("source_hash").alias("source_hash"),
        pl.Series("paid", [key in texts_cache for key in rows["text_key"]], dtype=pl.Boolean),
    )
    status = pl.when(pl.col("text_key").is_null()).then(pl.lit("skipped"))
    status = status.when("paid").then(pl.lit("cached")).otherwise(pl.lit("new"))
    rows = rows.with_columns(status.alias("status"))
    rows = rows.with_columns(pl.when(pl.col("status") == "new").then("n_prompt_tokens").alias("n_prompt_tokens"))

    send = pl.concat([kept, fresh]).drop_nulls("text_key").unique("text_key", keep="first")
    send = send.filter([key not in texts_cache for key in send["text_key"]])
    return Plan(
        spec,
        rows.select(list(PLAN)),
        fresh.drop_nulls("text_key").select(list(PROMPTS)),
        list(_requests(send, place_of, wanted, spec, engine)),
        engine.is_model,
    )


def estimate(
    plan: Plan,
    *,
    tokens_per_second: float | None = None,
    prompt_price: float = 0.0,
    output_price: float = 0.0,
) -> Estimate:
    """What sending the requests takes at `tokens_per_second` of output, and prices of a million tokens."""
    sent = plan.rows.filter(pl.col("status") == "new").unique("text_key")
    if not plan.is_model:
        return Estimate(len(plan.requests), 0, 0, 0.0, 0.0)
    prompt_tokens = int(sent["n_prompt_tokens"].sum())
    output_tokens = len(plan.requests) * plan.spec.max_tokens
    seconds = output_tokens / tokens_per_second if tokens_per_second else None
    cost = (prompt_tokens * prompt_price + output_tokens * output_price) / 1e6 if prompt_price or output_price else None
    return Estimate(len(plan.requests), prompt_tokens, output_tokens, seconds, cost)


def _source_hashes(
    wanted: ItemRows | UserRows,
    salts: Sequence[str],
    spec: PromptSpec,
    domain: Domain,
    engine: Engine,
    *,
    anonymised: bool,
) -> pl.Series:
    """Hash of everything that decides the text of each row, without rendering it."""
    common = {
        "prompt": spec.identity,
        "domain": domain.identity,
        "engine": dict(engine.identity),
        "limit": prompt_limit(spec, engine.max_model_len),
        "scale": wanted.scale,
    }
    if anonymised:  # the facts of a user name items by id, which is the same with and without
        common["titles"] = "pseudonyms"
    start = hashlib.sha256(_canonical(common).encode())
    hashes = []
    for salt, source in zip(salts, wanted.sources(), strict=True):
        digest = start.copy()
        digest.update(f"\0{salt}\0{source}".encode())
        hashes.append(digest.hexdigest())
    return pl.Series("source_hash", hashes, dtype=pl.String)


def _written(
    wanted: ItemRows | UserRows,
    places: Sequence[int],
    hashes: pl.Series,
    salts: Sequence[str],
    spec: PromptSpec,
    domain: Domain,
    engine: Engine,
) -> list[tuple[str, str | None, str | None, int | None, bool | None]]:
    """Rows of `_WRITTEN` for the entities at `places`; without a key where the prompt does not fit."""
    if not places:
        return []
    renderer = Renderer(spec, domain, tokens=engine.tokens(), max_model_len=engine.max_model_len)
    common = _canonical([dict(engine.identity), spec.name, spec.version, spec.max_tokens])
    start = hashlib.sha256(common.encode())
    rows: list[tuple[str, str | None, str | None, int | None, bool | None]] = []
    for at in range(0, len(places), RENDERED_AT_ONCE):
        block = places[at : at + RENDERED_AT_ONCE]
        facts = list(wanted.facts(block))
        for place, one, rendered in zip(block, facts, renderer.render(facts), strict=True):
            if rendered is None:
                rows.append((hashes[place], None, None, None, None))
                continue
            messages = json.dumps(rendered.messages, ensure_ascii=False)
            digest = start.copy()
            digest.update(f"\0{salts[place]}\0{messages}\0{_said(one) if engine.reads_facts else ''}".encode())
            rows.append((hashes[place], digest.hexdigest(), messages, rendered.n_tokens, rendered.shortened))
    return rows


def _with_tokens(prompts: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Stored prompts as rows of `_WRITTEN`."""
    tokens = engine.tokens()
    sizes = []
    for text in prompts["messages"].to_list():
        messages = json.loads(text)
        sizes.append(tokens.count(messages) if tokens else sum(estimate_tokens([m["content"] for m in messages])))
    size = pl.Series("n_prompt_tokens", sizes, dtype=pl.Int32)
    return prompts.with_columns(size, pl.lit(None, pl.Boolean).alias("shortened")).select(list(_WRITTEN))


def _requests(
    send: pl.DataFrame, place_of: dict[str, int], wanted: ItemRows | UserRows, spec: PromptSpec, engine: Engine
) -> Iterator[Request]:
    """One request for each row of `send`, in the order of the rows wanted."""
    entities = wanted.rows["entity_id"]
    found = sorted(
        ((place_of[source], key, messages) for source, key, messages in send.select(list(PROMPTS)).iter_rows()),
        key=lambda one: one[0],
    )
    places = [place for place, _, _ in found]
    facts: Iterator[Facts | None] = wanted.facts(places) if engine.reads_facts else iter([None] * len(places))
    for (place, key, messages), one in zip(found, facts, strict=True):
        yield Request(key, entities[place], tuple(json.loads(messages)), spec.max_tokens, one)


def _said(facts: Facts) -> str:
    """Everything an engine that reads facts can read, as one string."""
    if isinstance(facts, ItemFacts):
        return json.dumps([facts.title, facts.attributes])
    seen = [(item.title, item.attributes, rating) for item, rating in facts.history]
    return json.dumps([facts.attributes, facts.best, seen])


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
