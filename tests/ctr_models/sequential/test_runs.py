"""A saved run is the run, with and without text; and it retrieves by item ids, new items too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr_models.sequential import zoo
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.reduction import ItemInit
from ctr_models.sequential.retriever import Retriever
from ctr_models.sequential.runs import load_run, save_run
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.text import fit_text, item_vectors
from ctr_models.sequential.train import Run, TrainConfig, fit
from storage import plugins
from storage.errors import ConfigError, StoreError
from storage.features import FeatureSet
from storage.schema import EARLIEST
from tests.ctr_models.conftest import feature_set
from tests.ctr_models.sequential.conftest import make_sequences, make_text

KINDS = plugins.available(zoo)
FUSED = ItemInit(feature_set="item_knowledge", whiten=True, trainable=False, id_width=8)


def feature(data: Sequences) -> FeatureSet:
    text = make_text(data)
    told = [n for n in range(1, data.n_items + 1) if text.known[n]]
    return feature_set("item_knowledge", "item", [(data.items[n], EARLIEST, 0) for n in told], text.vectors[told])


def trained(
    data: Sequences, kind: str = "sasrec", init: ItemInit | None = None, *, epochs: int = 1, seed: int = 0
) -> Run:
    text = None
    if init is not None:
        stored = item_vectors(feature(data), data.items)
        catalogue = pl.DataFrame({"item_id": data.items[1:]})
        text = fit_text(stored, init, data, width=16, catalogue=catalogue, encoder="test encoder")
    options = plugins.load(zoo, kind).Config(width=16, dropout=0.0, learning_rate=0.01)
    config = TrainConfig(max_length=12, epochs=epochs, batch_size=16, threads=1, seed=seed)
    return fit(data, kind=kind, options=options, config=config, text=text)


@pytest.mark.parametrize(
    "init", [None, ItemInit(feature_set="item_knowledge"), FUSED], ids=["no text", "text", "fused"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_run_scores_to_the_last_bit(tmp_path: Path, kind: str, init: ItemInit | None) -> None:
    data = make_sequences()
    run = trained(data, kind, init)
    first = save_run(tmp_path, "next", run)
    read = load_run(tmp_path, "next")
    histories = data.queries["test"].history
    before, after = (ModelScorer(one.model, data.n_items).scores(histories) for one in (run, read))

    assert np.array_equal(before, after)
    assert (read.kind, read.options, read.config, read.items) == (run.kind, run.options, run.config, run.items)
    assert (read.init, read.encoder, dict(read.metrics)) == (run.init, run.encoder, dict(run.metrics))
    if run.reduction is not None and read.reduction is not None:
        assert np.array_equal(run.reduction.components, read.reduction.components)
    assert save_run(tmp_path, "next", run).number == first.number


def test_the_learning_rate_falls_where_validation_does_not_rise() -> None:
    options = plugins.load(zoo, "sasrec").Config(width=16, learning_rate=0.01)
    config = TrainConfig(max_length=12, epochs=40, batch_size=16, threads=1, patience=6, decay=0.1)
    epochs = fit(make_sequences(), kind="sasrec", options=options, config=config).metrics["epochs"]

    rate, best, waited = 0.01, -1.0, 0
    for epoch in epochs:
        assert epoch["learning_rate"] == pytest.approx(rate)
        best, waited = (epoch["ndcg@10"], 0) if epoch["ndcg@10"] > best else (best, waited + 1)
        if waited > 2:  # a third of the patience
            rate, waited = rate * 0.1, 0
    assert epochs[-1]["learning_rate"] < 0.01


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    data = make_sequences()
    versions = [save_run(tmp_path, "next", trained(data, seed=seed)).number for seed in (0, 0, 1)]

    assert versions == [1, 1, 2]


def test_damage_is_found(tmp_path: Path) -> None:
    version = save_run(tmp_path, "next", trained(make_sequences()))
    path = version.path / "weights.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(StoreError, match="weights"):
        load_run(tmp_path, "next")
    with pytest.raises(StoreError):
        load_run(tmp_path, "nobody")


def test_it_retrieves_what_ranking_puts_first() -> None:
    data = make_sequences()
    run = trained(data, epochs=15)
    retriever = Retriever(run, data.items[1:])
    history = [data.items[int(n)] for n in data.queries["test"].history[0]]
    found = retriever.candidates(history, 5)
    scores = ModelScorer(run.model, data.n_items).scores(data.queries["test"].history.take(np.array([0])))[0]
    order = [data.items[int(n)] for n in np.argsort(-scores, kind="stable") if data.items[int(n)] not in history]

    assert found == order[:5]
    assert len(retriever.candidates(history, 10_000)) == data.n_known - len(history)
    assert retriever.candidates(["?", *history, "??"], 5) == found  # who is unknown is passed over
    assert retriever.candidates([], 5) == retriever.candidates(["?"], 5) == []


def test_new_items_are_retrieved_by_their_text_and_gone_ones_are_not() -> None:
    data = make_sequences()
    run = trained(data, init=FUSED)
    gone = data.items[3]
    catalogue = data.items[1:].filter(data.items[1:] != gone)
    found = Retriever(run, catalogue, feature(data)).candidates([data.items[1]], 100)

    assert set(data.items[data.n_known + 1 :]) <= set(found)
    assert gone not in found
    assert Retriever(run, catalogue, feature(data)).candidates([data.items[-1]], 3)  # a history of new items only
    with pytest.raises(StoreError, match="needs feature set"):
        Retriever(run, catalogue)
    with pytest.raises(StoreError, match="encoded by other"):
        Retriever(run, catalogue, replace(feature(data), encoder="other"))


def test_text_of_users_is_no_text_of_items() -> None:
    data = make_sequences()
    with pytest.raises(ConfigError, match="of users"):
        item_vectors(replace(feature(data), entity="user"), data.items)
