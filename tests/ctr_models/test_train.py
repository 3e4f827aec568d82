"""Training chooses on validation rows only, keeps the best epoch, repeats itself, and learns what the text knows."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ctr_models import zoo
from ctr_models.evaluate import compare, evaluation, report
from ctr_models.metrics import auc
from ctr_models.samples import SampleConfig, encode
from ctr_models.train import Progress, Run, TrainConfig, fit, score
from ctr_models.zoo import NetworkConfig
from storage import plugins
from storage.errors import DataError
from storage.features import FeatureSet
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import make_world, without_features

CONFIG = TrainConfig(batch_size=128, epochs=4, threads=1, samples=SampleConfig(max_history=10))


def options(kind: str, **values: object) -> NetworkConfig:
    config = plugins.load(zoo, kind).Config
    small = {"hidden": (32, 16)} if "hidden" in config.model_fields else {}
    return config(**{"learning_rate": 5e-3, **small, **values})


def train(snapshot: Snapshot, kind: str = "deepfm", config: TrainConfig = CONFIG) -> Run:
    return fit(encode(snapshot, config.samples), kind=kind, options=options(kind), config=config)


def same_weights(one: Run, other: Run) -> bool:
    theirs = other.model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.model.state_dict().items())


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    snapshot = make_world()
    first = train(snapshot)

    assert same_weights(first, train(snapshot))
    assert not same_weights(first, train(snapshot, config=CONFIG.model_copy(update={"seed": 1})))


def test_training_never_looks_at_test_rows() -> None:
    snapshot = make_world()
    turned = pl.when(pl.col("split") == "test").then(1 - pl.col("label")).otherwise(pl.col("label"))
    other = replace(snapshot, samples=snapshot.samples.with_columns(label=turned.cast(pl.Int8)))

    assert same_weights(train(snapshot), train(other))


def test_the_best_epoch_on_validation_is_kept() -> None:
    snapshot = make_world()
    samples = encode(snapshot, CONFIG.samples)
    config = CONFIG.model_copy(update={"epochs": 60, "patience": 3})
    run = fit(samples, kind="deepfm", options=options("deepfm", learning_rate=0.03), config=config)
    epochs = run.metrics["epochs"]
    best = max(epochs, key=lambda record: record["auc"])
    now = auc(samples.label[samples.split["validation"]].numpy(), score(run.model, samples, "validation"))

    assert run.metrics["best_epoch"] == best["epoch"]
    assert len(epochs) == best["epoch"] + 3  # and then it stopped
    assert now == best["auc"]


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_the_moving_average_of_the_weights_is_kept(averaging: float) -> None:
    tables: list[torch.Tensor] = []

    def remember(optimizer: torch.optim.Optimizer, *_: object) -> None:
        tables.append(optimizer.param_groups[0]["params"][0].detach().clone())

    hook = register_optimizer_step_post_hook(remember)
    try:
        run = train(make_world(), config=CONFIG.model_copy(update={"epochs": 1, "averaging": averaging}))
    finally:
        hook.remove()
    expected = tables[0]
    for table in tables[1:]:
        expected = averaging * expected + (1 - averaging) * table

    assert len(tables) > 5
    torch.testing.assert_close(run.model.table.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_learning_rate_stays_or_falls_in_a_line(schedule: str) -> None:
    rates: list[list[float]] = []

    def remember(optimizer: torch.optim.Optimizer, *_: object) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])

    hook = register_optimizer_step_post_hook(remember)
    try:
        run = train(make_world(), config=CONFIG.model_copy(update={"epochs": 3, "patience": 3, "schedule": schedule}))
    finally:
        hook.remove()
    left = 1 - np.arange(len(rates)) / len(rates) if schedule == "linear" else np.ones(len(rates))

    assert len(run.metrics["epochs"]) == 3
    np.testing.assert_allclose(np.array(rates), run.options.learning_rate * left[:, None] * [[1, 1, 1]], rtol=1e-6)


def test_progress_is_told_for_every_batch() -> None:
    seen: list[Progress] = []
    samples = encode(make_world(), CONFIG.samples)
    config = CONFIG.model_copy(update={"epochs": 2})
    fit(samples, kind="deepfm", options=options("deepfm"), config=config, progress=seen.append)
    batches = -(-len(samples.split["train"]) // 128)

    assert [(p.epoch, p.batch) for p in seen] == [(e, b) for e in (1, 2) for b in range(1, batches + 1)]
    assert {p.batches for p in seen} == {batches}
    assert np.isnan(seen[0].validation_auc)
    assert 0 < seen[-1].validation_auc < 1


def test_training_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(make_world())

    torch.testing.assert_close(expected, torch.rand(2), rtol=0, atol=0)


def test_rows_with_one_label_only_cannot_train() -> None:
    snapshot = make_world()
    liked = snapshot.samples.with_columns(label=pl.lit(1, pl.Int8))
    with pytest.raises(DataError, match="the train rows cannot be used to train: no negative label"):
        train(replace(snapshot, samples=liked))


def permuted(snapshot: Snapshot) -> Snapshot:
    """The same vectors, each given to another item."""
    features = dict(snapshot.features)
    feature = features["item_knowledge"]
    order = np.random.default_rng(0).permutation(len(feature.vectors))
    features["item_knowledge"] = replace(feature, vectors=feature.vectors[order])
    del features["user_preference"]
    return replace(snapshot, features=features)


def only_items(snapshot: Snapshot) -> Snapshot:
    kept: dict[str, FeatureSet] = {"item_knowledge": snapshot.features["item_knowledge"]}
    return replace(snapshot, features=kept)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deepfm", "dcnv2", "din"])  # sums, crosses, attends
def test_text_tells_about_cold_items_and_permuted_text_does_not(kind: str) -> None:
    snapshot = make_world(users=150, items=200, rows=15_000)
    config = CONFIG.model_copy(update={"epochs": 8})
    results = {}
    for arm, data in {
        "base": without_features(snapshot),
        "text": only_items(snapshot),
        "permuted": permuted(snapshot),
    }.items():
        samples = encode(data, config.samples)
        run = fit(samples, kind=kind, options=options(kind, learning_rate=2e-3), config=config)
        results[arm] = evaluation(data, score(run.model, samples, "test"))
    cold = {arm: report(result)["cold_items"]["auc"] for arm, result in results.items()}
    over_base = compare(results["base"], results["text"])["cold_items"]
    over_strangers = compare(results["permuted"], results["text"])["cold_items"]

    assert float(cold["text"] or 0) > 0.75, cold
    assert over_base.low > 0.1, over_base
    assert over_strangers.low > 0.1, over_strangers
