"""How does a plan become a feature set? Send what is missing, judge every text, encode what passed, publish.

Everything paid for lies in the caches before the next step begins, so the same command continues where it stopped.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from llm_features.encode import EncodeSummary, encode, text_hash, vectors_cache
from llm_features.encoders import Encoder
from llm_features.engines import Engine
from llm_features.generate import GenerationSummary, generate
from llm_features.plan import Plan
from llm_features.quality import Gate, judge
from storage.cache import Cache
from storage.features import publish_features
from storage.files import Version
from storage.schema import FEATURES, PROMPTS, REJECTED, TEXTS

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Built:
    """What one night did for one feature set. rejected: rows by named reason."""

    plan: Plan
    generation: GenerationSummary
    encoding: EncodeSummary
    accepted: int
    rejected: Mapping[str, int]
    version: Version


def prompts_cache(root: Path) -> Cache:
    """source_hash -> text_key and the exact messages."""
    return Cache(root / "prompts", PROMPTS, key="source_hash")


def texts_cache(root: Path) -> Cache:
    """text_key -> what the engine answered, good or not."""
    return Cache(root / "texts", TEXTS, key="text_key")


def build(
    root: Path,
    name: str,
    plan: Plan,
    *,
    engine: Engine,
    open_encoder: Callable[[list[str]], Encoder],
    prompts: Cache,
    texts: Cache,
    shard_size: int,
    run_id: str,
    lineage: Mapping[str, object],
    on_generate: OnProgress,
    on_encode: OnProgress,
) -> Built:
    """Carry out `plan` and publish feature set `name`; each step takes what an earlier night left.

    open_encoder: gives the encoder, which may look at the texts to settle itself. The engine is closed before it is
    opened, so the memory it held is free. Raises GenerationError, StoreError.
    """
    prompts.append(plan.prompts)
    generation = generate(plan.requests, engine, texts, shard_size=shard_size, run_id=run_id, on_progress=on_generate)
    engine.close()
    answered = plan.rows.filter(pl.col("text_key").is_not_null())
    answered = answered.filter([key in texts for key in answered["text_key"]])
    judged = _judged(answered, plan.spec.gate if engine.is_judged else None, prompts, texts)
    good = judged.filter(pl.col("reason").is_null())
    hashes = [text_hash(text) for text in good["text"]]
    good = good.with_columns(text_hash=pl.Series(hashes, dtype=pl.String))
    encoder = open_encoder(good["text"].to_list())
    encoding = encode(good["text"].to_list(), encoder, root / "vectors", on_progress=on_encode)
    vectors = vectors_cache(root / "vectors", encoder).fetch(good["text_hash"].unique(maintain_order=True).to_list())
    rows = good.join(vectors.select("text_hash", "n_tokens", "truncated"), on="text_hash", how="left")
    bad = judged.filter(pl.col("reason").is_not_null())
    version = publish_features(
        root,
        name,
        entity=plan.spec.entity,
        rows=rows.select(list(FEATURES)),
        rejected=bad.select(list(REJECTED)),
        vectors=vectors,
        encoder=encoder.identity,
        lineage={**lineage, "prompt": plan.spec.identity, "engine": dict(engine.identity)},
    )
    reasons = dict(bad.group_by("reason").len().sort("len", descending=True).iter_rows())
    return Built(plan, generation, encoding, len(good), reasons, version)


def _judged(rows: pl.DataFrame, gate: Gate | None, prompts: Cache, texts: Cache) -> pl.DataFrame:
    """`rows` with `text`, `finish_reason`, `created_at` and `reason` (null where the gate lets the text pass)."""
    keys = rows["text_key"].unique(maintain_order=True).to_list()
    answers = texts.fetch(keys).select("text_key", "text", "finish_reason", "created_at")
    first = rows.unique("text_key", keep="first", maintain_order=True)["source_hash"].to_list()
    shown = prompts.fetch(first)["messages"].to_list()
    reasons = [
        judge(text, finish, "\n".join(message["content"] for message in _messages(said)), gate)
        for text, finish, said in zip(answers["text"], answers["finish_reason"], shown, strict=True)
    ]
    answers = answers.with_columns(reason=pl.Series(reasons, dtype=pl.String))
    return rows.drop("reason").join(answers, on="text_key", how="left", maintain_order="left")


def _messages(said: str) -> list[dict[str, Any]]:
    return json.loads(said)
