"""What are the steps of a night? One function each: from a run's configuration and the store to a small summary.

A step reads what the steps before it published and publishes its own result; what is there already is not done again.
Summaries are plain JSON: they become Prefect artifacts, rows of the view `nights`, and what a person reads at the end.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

import llm_features.domains
import llm_features.engines
import llm_features.prompt_specs
from flows.config import RunConfig
from flows.night import nights
from flows.progress import progress
from llm_features.build import build, prompts_cache, texts_cache
from llm_features.encode import open_encoder
from llm_features.encoders import Encoder
from llm_features.plan import Plan, estimate
from llm_features.plan import plan as make_plan
from storage import files
from storage.cache import Cache
from storage.catalog import build_catalog
from storage.errors import ConfigError
from storage.ingest import ingest as read_source
from storage.ingest import load_dataset, publish_dataset
from storage.interactions import Dataset
from storage.layout import folders
from storage.plugins import load


def ingest(config: RunConfig, *, download: bool = False) -> dict:
    """Read and check the source, publish the tables. Raises DataError where too many rows are bad."""
    started = time.time()
    section = config.dataset
    options = section.options
    if download:
        if "download" not in type(options).model_fields:
            raise ConfigError(f"dataset source {section.kind!r} has nothing to download")
        options = options.model_copy(update={"download": True})
    ingested = read_source(section.kind, options, max_bad_share=section.max_bad_share)
    version = publish_dataset(config.store.root, ingested)
    dataset = ingested.dataset
    return {
        "dataset": dataset.name,
        "version": version.number,
        "rows_read": ingested.n_rows_read,
        "interactions": len(dataset.interactions),
        "users": len(dataset.users),
        "items": len(dataset.items),
        "quarantined": len(ingested.quarantine),
        "quarantined_by_reason": dict(ingested.quarantine.group_by("reason").len().sort("reason").iter_rows()),
        "seconds": round(time.time() - started, 2),
    }


def plan(config: RunConfig, feature: str) -> dict:
    """Dry run of one feature set: what would be sent, and what it would take. Writes nothing."""
    dataset = _dataset(config, dry=True)
    engine = _engine(config, feature)
    try:
        planned = _plan(config, feature, dataset, engine)
    finally:
        engine.close()
    seen = _tokens_per_second(config.store.root, feature)
    said = estimate(planned, tokens_per_second=seen)
    return {"feature": feature, **_counts(planned), "estimate": asdict(said), "tokens_per_second": seen}


def generate(config: RunConfig, feature: str) -> dict:
    """Write the missing text of one feature set, judge it, encode it, publish a version."""
    started = time.time()
    root = config.store.root
    dataset = _dataset(config)
    engine = _engine(config, feature)
    if config.generate.retry_failed:
        _forget_failed(texts_cache(root))
    try:
        planned = _plan(config, feature, dataset, engine)
        with progress(f"{feature}: texts") as on_generate, progress(f"{feature}: vectors") as on_encode:
            built = build(
                root,
                feature,
                planned,
                engine=engine,
                open_encoder=lambda some: _encoder(config, feature, some),
                prompts=prompts_cache(root),
                texts=texts_cache(root),
                shard_size=config.generate.shard_size,
                run_id=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
                lineage={"dataset": files.version(root / "dataset").content_hash},
                on_generate=on_generate,
                on_encode=on_encode,
            )
    finally:
        engine.close()
    sent = asdict(built.generation)
    tokens = sent["n_prompt_tokens"] + sent["n_output_tokens"]
    return {
        "feature": feature,
        **_counts(planned),
        "generation": sent,
        "tokens": tokens,
        "tokens_per_second": round(tokens / sent["seconds"]) if tokens and sent["seconds"] else 0,
        "accepted": built.accepted,
        "rejected": dict(built.rejected),
        "encoding": asdict(built.encoding),
        "version": built.version.number,
        "content_hash": built.version.content_hash,
        "seconds": round(time.time() - started, 2),
    }


def publish_catalog(config: RunConfig) -> dict:
    """Rebuild `catalog.duckdb` over the newest versions."""
    root = config.store.root
    return {"catalog": str(build_catalog(root, nights=nights(root), runs=runs(root)))}


def runs(root: Path) -> list[dict]:
    """Every trained run, as records for the view `runs`; `family` says whether it ranks or reads sequences."""
    families = {"ctr": folders(root / "runs"), "sequential": folders(root / "sequential_runs")}
    found = [(family, v) for family, names in families.items() for name in names for v in files.versions(name)]
    return [
        {
            "family": family,
            "name": version.path.parent.name,
            "version": version.number,
            "created_at": version.manifest["created_at"],
            **version.meta,
        }
        for family, version in found
    ]


def _dataset(config: RunConfig, *, dry: bool = False) -> Dataset:
    """The stored dataset; a dry run reads the source where nothing is stored yet."""
    if dry and files.latest(config.store.root / "dataset") is None:
        section = config.dataset
        return read_source(section.kind, section.options, max_bad_share=section.max_bad_share).dataset
    return load_dataset(config.store.root)


def _plan(config: RunConfig, feature: str, dataset: Dataset, engine: Any) -> Plan:
    section = config.features[feature]
    if section.factors and not engine.is_model:
        raise ConfigError(
            f"features.{feature}.factors chooses what a model is asked, but engine {section.engine!r} is none: its "
            "text is the same whatever is asked"
        )
    return make_plan(
        dataset,
        llm_features.prompt_specs.load(section.prompt),
        llm_features.domains.load(dataset.domain).only(section.factors),
        engine,
        prompts_cache=prompts_cache(config.store.root),
        texts_cache=texts_cache(config.store.root),
        first_checkpoint=section.first_checkpoint,
        growth=section.growth,
        max_history=section.max_history,
        anonymised=section.anonymised,
    )


def _forget_failed(texts: Cache) -> None:
    """Let prompts that were set aside because they killed the engine be sent again."""
    finished = texts.fetch(sorted(texts.keys()), columns=["text_key", "finish_reason"])
    texts.drop(finished.filter(finish_reason="set_aside")["text_key"])


def _counts(planned: Plan) -> dict:
    skipped = planned.rows.filter(pl.col("status") == "skipped").group_by("reason").len().sort("reason")
    return {
        "wanted": len(planned.rows),
        "new": planned.count("new"),
        "cached": planned.count("cached"),
        "skipped": dict(skipped.iter_rows()),
        "prompts": len(planned.requests),
    }


def _engine(config: RunConfig, feature: str) -> Any:
    """The engine that answers for `feature`."""
    if feature not in config.features:
        raise ConfigError(f"no feature {feature!r}; [features] has: {', '.join(config.features) or 'none'}")
    return open_engine(config, config.features[feature].engine)


def open_engine(config: RunConfig, name: str) -> Any:
    """Engine `name` of [engines]; the small demonstration model is trained where it is missing. Raises ConfigError."""
    if name not in config.engines:
        raise ConfigError(f"no engine {name!r}; [engines] has: {', '.join(config.engines) or 'none'}")
    section = config.engines[name]
    options = section.options
    if getattr(options, "model", None) == "small-lm":
        from llm_features import small_lm

        with progress("training the small LM") as on_progress:
            folder = small_lm.ensure(config.store.root, on_progress=on_progress)
        options = options.model_copy(update={"model": str(folder)})
    return load(llm_features.engines, section.kind).Engine(options)


def _encoder(config: RunConfig, feature: str, texts: list[str]) -> Encoder:
    named = config.features[feature].encoder
    section = config.encoder if named is None else config.encoders[named]
    settled = section.kind if named is None else f"{section.kind}.{named}"
    return open_encoder(
        config.store.root / "encoders" / f"{settled}.json", section.kind, section.options.model_dump(), texts
    )


def _tokens_per_second(root: Path, feature: str) -> float | None:
    """Output tokens a second of the last night that generated something, for estimates."""
    for night in reversed(nights(root)):
        for done in night["summary"].get("features", []):
            sent = done.get("generation", {})
            if done["feature"] == feature and sent.get("n_output_tokens") and sent.get("seconds"):
                return sent["n_output_tokens"] / sent["seconds"]
    return None
