"""What finds the candidates that a CTR model ranks? Sequential models, trained each night and judged once.

They learn from the rows that the CTR models learn from, under the same split. A run whose data, text and configuration
are those of the newest version is not trained again.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from ctr_models.sequential import runs
from ctr_models.sequential.evaluate import slices
from ctr_models.sequential.metrics import hits, ndcg
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.retriever import CANDIDATES
from ctr_models.sequential.sequences import Sequences, sequences
from ctr_models.sequential.text import fit_text, item_vectors
from ctr_models.sequential.train import RECIPE, Run, fit
from flows.config import RunConfig
from flows.digests import digest
from flows.progress import in_batches, progress
from flows.run_sections import SIMILARITY
from storage import files
from storage.features import FeatureSet, load_features
from storage.ingest import load_dataset
from storage.interactions import Dataset


def train_retrievers(config: RunConfig) -> dict:
    """Train the retrievers that are not trained yet; what each finds of the test rows, without and with new items.

    Raises ConfigError or DataError where the split leaves no sequences, StoreError where a feature set is missing.
    """
    if not config.retrievers:
        return {}
    root = config.store.root
    dataset = load_dataset(root)
    data = sequences(dataset, config.split, lineage={"dataset": files.version(root / "dataset").content_hash})
    return {"retrievers": [_trained(config, name, dataset, data) for name in config.retrievers]}


def load_retrieval(config: RunConfig) -> Run | None:
    """The newest run of the configured retriever; None where candidates come from similarity.

    Raises StoreError where it was never trained.
    """
    name = config.recommend.retrieval
    return None if name == SIMILARITY else runs.load_run(config.store.root, name)


def retrieval_version(config: RunConfig) -> files.Version | None:
    """The stored version behind `load_retrieval`."""
    name = config.recommend.retrieval
    return None if name == SIMILARITY else files.version(runs.folder(config.store.root, name))


def _trained(config: RunConfig, name: str, dataset: Dataset, data: Sequences) -> dict[str, Any]:
    root, section, started = config.store.root, config.retrievers[name], time.time()
    feature, said = None, dict(data.lineage)
    if section.item_init is not None:
        feature = load_features(root, section.item_init.feature_set)
        content = feature.manifest["content_hash"]
        made = {"version": feature.version, "content_hash": content, "encoder": feature.encoder}
        said["features"] = {feature.name: made}
    key = _key(config, name, data, feature)
    stored = files.latest(runs.folder(root, name))
    is_new = stored is None or stored.meta["metrics"].get("key") != key
    if is_new:
        run, found = _fit(config, name, dataset, data, feature)
        metrics = {**run.metrics, "key": key, "test": found}
        stored = runs.save_run(root, name, replace(run, metrics=metrics, lineage=said))
    assert stored is not None
    return {
        "retriever": name,
        "model": section.kind,
        "trained": is_new,
        "version": stored.number,
        "test": stored.meta["metrics"]["test"],
        "sequences_per_second": stored.meta["metrics"]["sequences_per_second"],
        "seconds": round(time.time() - started, 2),
    }


def _fit(
    config: RunConfig, name: str, dataset: Dataset, data: Sequences, feature: FeatureSet | None
) -> tuple[Run, dict[str, Any]]:
    """A trained run, and what it finds for the test queries."""
    section, text = config.retrievers[name], None
    if section.item_init is not None and feature is not None:
        text = fit_text(
            item_vectors(feature, data.items),
            section.item_init,
            data,
            width=section.options.width,  # type: ignore[attr-defined]
            catalogue=dataset.items,
            encoder=feature.encoder,
        )
    with progress(f"{name} sequences") as on_progress:
        run = fit(
            data,
            kind=section.kind,
            options=section.options,  # type: ignore[arg-type]
            config=section.train,
            text=text,
            progress=in_batches(on_progress),
        )
    asked = data.queries["test"]
    ranks = rank(ModelScorer(run.model, data.n_items, text and text.items), asked).ranks
    chosen = slices(data, asked, cold_at_most=config.compare.cold_at_most)
    return run, {part: _found(ranks[chosen[part]]) for part in ("all", "cold_items") if chosen[part].any()}


def _found(ranks: np.ndarray) -> dict[str, float]:
    """How often the next item is first, among the first, or a candidate at all."""
    shares = {f"hr@{k}": float(hits(ranks, k).mean()) for k in (10, CANDIDATES)}
    return {"queries": len(ranks), "ndcg@10": float(ndcg(ranks, 10).mean()), **shares}


def _key(config: RunConfig, name: str, data: Sequences, feature: FeatureSet | None) -> str:
    """Hash of everything that decides a trained run: rows, split, text, and its configuration."""
    section = config.retrievers[name].model_dump(mode="json")
    section["train"].pop("threads")
    said = [RECIPE, section, data.lineage, feature and feature.manifest["content_hash"], config.compare.cold_at_most]
    return digest(said)
