"""A saved run is the run: equal scores to the last bit, nothing published twice, damage found."""

import json
from pathlib import Path

import numpy as np
import pytest

from ctr_models import zoo
from ctr_models.runs import load_run, run_names, save_run
from ctr_models.samples import SampleConfig, encode
from ctr_models.train import Run, TrainConfig, fit, score
from storage import plugins
from storage.errors import StoreError
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import make_world, without_features

CONFIG = TrainConfig(batch_size=256, epochs=1, threads=1, samples=SampleConfig(max_history=6))
KINDS = plugins.available(zoo)


def trained(snapshot: Snapshot, kind: str = "deepfm", seed: int = 0) -> Run:
    config = CONFIG.model_copy(update={"seed": seed})
    options = plugins.load(zoo, kind).Config()
    return fit(encode(snapshot, config.samples), kind=kind, options=options, config=config)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_run_scores_to_the_last_bit(tmp_path: Path, kind: str, text: bool) -> None:
    snapshot = make_world() if text else without_features(make_world())
    run = trained(snapshot, kind)
    save_run(tmp_path, kind, run)
    read = load_run(tmp_path, kind)
    before = encode(snapshot, run.config.samples, vocabulary=run.vocabulary, statistics=run.statistics)
    after = encode(snapshot, read.config.samples, vocabulary=read.vocabulary, statistics=read.statistics)

    assert (run.kind, run.options, run.config, run.vocabulary) == (
        read.kind,
        read.options,
        read.config,
        read.vocabulary,
    )
    assert np.array_equal(score(run.model, before, "test"), score(read.model, after, "test"))
    assert json.loads(json.dumps(run.metrics)) == read.metrics
    assert json.loads(json.dumps(run.lineage)) == read.lineage


def test_the_same_model_is_published_once_and_another_is_a_new_version(tmp_path: Path) -> None:
    snapshot = make_world()
    first = save_run(tmp_path, "base", trained(snapshot))
    again = save_run(tmp_path, "base", trained(snapshot))
    other = save_run(tmp_path, "base", trained(snapshot, seed=1))

    assert (first.number, again.number, other.number) == (1, 1, 2)
    assert load_run(tmp_path, "base", 1).config.seed == 0
    assert load_run(tmp_path, "base").config.seed == 1


def test_runs_have_names(tmp_path: Path) -> None:
    assert run_names(tmp_path) == []
    save_run(tmp_path, "with_text", trained(make_world()))
    assert run_names(tmp_path) == ["with_text"]


def test_there_is_no_pickle_in_a_run(tmp_path: Path) -> None:
    version = save_run(tmp_path, "base", trained(make_world()))

    names = {path.name for path in version.path.iterdir()}
    assert names == {"config.json", "vocabulary.json", "weights.safetensors", "metrics.json", "manifest.json"}


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "weights.safetensors", "metrics.json"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    version = save_run(tmp_path, "base", trained(make_world()))
    path = version.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=f"{name} is missing or damaged"):
        load_run(tmp_path, "base")


def test_a_run_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no version at all"):
        load_run(tmp_path, "nothing")
