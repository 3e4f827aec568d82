"""One flipped bit in any stored file: our own readers say so, or it made no difference."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ctr_models.runs import load_run
from flows import learning, recommending, steps
from flows.night import nights, run_night
from llm_features.build import prompts_cache, texts_cache
from storage.cache import Cache
from storage.catalog import query
from storage.errors import StoreError
from storage.features import load_features
from storage.files import version
from storage.ingest import load_dataset
from tests.flows.test_night import tiny

SQL = "SELECT entity_id, text, as_of, version FROM feature_history ORDER BY ALL"


def rows_of(cache: Cache) -> object:
    return cache.fetch(sorted(cache.keys())).drop("created_at", strict=False).to_dict(as_series=False)


def features_of(root: Path) -> object:
    read = load_features(root, "user_preference")
    return read.rows.to_dict(as_series=False), read.vectors.tobytes(), read.encoder, dict(read.manifest)


def dataset_of(root: Path) -> object:
    read = load_dataset(root)
    return [frame.to_dict(as_series=False) for frame in (read.interactions, read.users, read.items)]


def run_of(root: Path) -> object:
    run = load_run(root, "deepfm")
    weights = {name: tensor.numpy().tobytes() for name, tensor in run.model.state_dict().items()}
    return weights, asdict(run.vocabulary), run.config.model_dump(), dict(run.metrics), run.lineage


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "Parquet of interactions": ("dataset/v000001/interactions.parquet", dataset_of),
    "Parquet of texts": ("features/user_preference/v000001/features.parquet", features_of),
    "Parquet of vectors": ("features/user_preference/v000001/vectors.parquet", features_of),
    "Parquet under the catalog": (
        "features/user_preference/v000001/features.parquet",
        lambda root: query(root, SQL).rows(),
    ),
    "cached prompts": ("prompts/*.parquet", lambda root: rows_of(prompts_cache(root))),
    "cached texts": ("texts/*.parquet", lambda root: rows_of(texts_cache(root))),
    "manifest": ("features/user_preference/v000001/manifest.json", features_of),
    "record of a night": ("nights/*.json", nights),
    "catalog": ("catalog.duckdb", lambda root: query(root, "SELECT * FROM nights, runs").rows()),
    "model weights": ("runs/deepfm/v000001/weights.safetensors", run_of),
    "vocabulary": ("runs/deepfm/v000001/vocabulary.json", run_of),
    "model configuration": ("runs/deepfm/v000001/config.json", run_of),
    "recommendations": (
        "recommendations/v000001/recommendations.parquet",
        lambda root: query(root, "SELECT * FROM recommendations ORDER BY ALL").rows(),
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything in it."""
    config = tiny(tmp_path_factory.mktemp("flips"), "train.epochs=1", users=30)[1]

    def work() -> dict:
        steps.ingest(config)
        for name in config.features:
            steps.generate(config, name)
        return {**learning.train(config), **recommending.recommend_all(config)}

    run_night(config.store.root, "night", "2026-01-01", work, then=lambda: steps.publish_catalog(config))
    return config.store.root


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_is_read_as_data(kind: str, root: Path, count: Callable[[int, int], int]) -> None:
    pattern, read = KINDS[kind]
    path, rng = sorted(root.glob(pattern))[0], np.random.default_rng(2)
    good, truth, found = path.read_bytes(), read(root), 0
    trials = count(25, 1000)
    try:
        for _ in range(trials):
            place, bit = int(rng.integers(len(good))), int(rng.integers(8))
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            said = ""
            try:
                seen = read(root)
            except StoreError as error:
                said = str(error)
            if said:
                assert path.name in said or path.parent.name in said
                found += 1
            else:
                assert seen == truth, f"bit {bit} of byte {place} of {path} was read as data"
    finally:
        path.write_bytes(good)
    assert read(root) == truth
    assert found > trials / 2


def test_what_is_compared_would_show_a_difference(root: Path) -> None:
    """The readings above are of the whole content, so that "equal" means something."""
    assert len(json.dumps(rows_of(prompts_cache(root)))) > 10_000
    assert version(root / "runs" / "deepfm").meta["metrics"] == run_of(root)[3]  # type: ignore[index]
