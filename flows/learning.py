"""What are the steps of a night that learn? Train each model with and without the features, compare, recommend.

A run whose data, features and configuration are those of the newest version is not trained again.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ctr_models import runs, samples
from ctr_models.controls import permuted
from ctr_models.evaluate import Evaluation, compare, evaluation, read_pairs, report
from ctr_models.samples import Samples
from ctr_models.train import RECIPE, Run, fit, score
from flows import protocols
from flows.config import RunConfig
from flows.digests import digest
from flows.progress import in_batches, progress
from storage import files
from storage.errors import StoreError
from storage.features import FeatureSet, feature_sets, load_features
from storage.ingest import load_dataset
from storage.layout import COMPARISONS
from storage.snapshot import Snapshot, take_snapshot
from storage.split import assign

ARMS = ("without", "with", "permuted")
"""Base model; with the features; with the features' vectors given to strangers, which must not help."""

SLICES = {"": "all", "cold_": "cold_items", "pairs_": "pairs", "other_pairs_": "other_pairs"}
"""How the metrics of each slice of test rows begin."""


def snapshot(config: RunConfig) -> Snapshot:
    """The newest data and feature sets, joined strictly in the past of each label."""
    root = config.store.root
    dataset = load_dataset(root)
    published = feature_sets(root)
    features = [load_features(root, name) for name in config.features if name in published]
    taken = take_snapshot(
        dataset,
        features,
        **config.labels.model_dump(),
        split=partial(assign, config=config.split, clock=dataset.clock),
        lineage={
            "dataset": files.version(root / "dataset").content_hash,
            "split": config.split.model_dump(mode="json"),
        },
    )
    if config.protocol is not None:
        protocols.check(protocols.load(config.protocol), taken)
    return taken


def train(config: RunConfig) -> dict:
    """Train what is not trained yet, judge everything on the test rows once, say what the features brought."""
    taken = snapshot(config)
    counts = dict(taken.samples.group_by("split").len().iter_rows())
    arms = [arm for arm in ARMS if arm in config.compare.arms and (arm == "without" or taken.features)]
    encoded: dict[str, Samples] = {}

    def data(arm: str) -> Samples:
        if arm not in encoded:
            encoded[arm] = samples.encode(view(taken, arm), config.train.samples)
        return encoded[arm]

    models = [_train_model(config, name, taken, arms, data) for name in config.models]
    summary = {f"{split}_rows": counts.get(split, 0) for split in ("train", "validation", "test")}
    return {**summary, "cold_at_most": config.compare.cold_at_most, "models": models}


def evaluate(config: RunConfig) -> dict:
    """Score the newest runs on the test rows again, whatever was recorded, and compare them."""
    taken = snapshot(config)
    models = []
    for name in config.models:
        judged = {}
        for arm in ARMS:
            if files.latest(runs.folder(config.store.root, run_name(name, arm))) is not None:
                judged[arm] = _judge(runs.load_run(config.store.root, run_name(name, arm)), view(taken, arm))
        if not judged:
            raise StoreError(f"model {name!r} was never trained; run `nightshift train` first")
        models.append({"model": name, **_compared(config, judged)})
    counts = dict(taken.samples.group_by("split").len().iter_rows())
    return {"test_rows": counts.get("test", 0), "cold_at_most": config.compare.cold_at_most, "models": models}


def run_name(model: str, arm: str) -> str:
    """Name of a run: the model's own with the features, `<model>.<arm>` for the others."""
    return model if arm == "with" else f"{model}.{arm}"


def arm_of(run: str) -> str:
    """The arm of a run of that name: what `run_name` was given."""
    arm = run.rpartition(".")[2]
    return arm if arm != run and arm in ARMS else "with"


def _train_model(
    config: RunConfig, name: str, taken: Snapshot, arms: list[str], data: Callable[[str], Samples]
) -> dict[str, Any]:
    """Every arm is saved as soon as it is trained; the comparison of all has a folder of its own."""
    root, started = config.store.root, time.time()
    keys = {arm: _key(config, name, arm, view(taken, arm)) for arm in arms}
    pairs = read_pairs(config.compare.pairs).rows() if config.compare.pairs else []
    asked = digest([keys, config.compare.model_dump(mode="json", exclude={"pairs"}), *pairs])
    known = files.latest(root / COMPARISONS / name)
    trained = all(_stored(config, name, arm, keys[arm]) for arm in arms)  # a damaged run may have been set aside
    if known is not None and known.content_hash == asked and trained:
        return {**known.meta["summary"], "trained": [], "seconds": round(time.time() - started, 2)}
    judged: dict[str, Evaluation] = {}
    speed: dict[str, float] = {}
    for arm in arms:
        if _stored(config, name, arm, keys[arm]):
            judged[arm] = _judge(runs.load_run(root, run_name(name, arm)), view(taken, arm))
            continue
        run = _fit(config, name, arm, data(arm))
        judged[arm] = evaluation(taken, score(run.model, data(arm), "test"))
        test = report(judged[arm], cold_at_most=config.compare.cold_at_most)
        runs.save_run(root, run_name(name, arm), replace(run, metrics={**run.metrics, "key": keys[arm], "test": test}))
        speed[arm] = run.metrics["samples_per_second"]
    summary: dict[str, Any] = {"model": name, **_compared(config, judged)}
    files.publish(root / COMPARISONS / name, {}, content_hash=asked, meta={"summary": summary})
    took = round(time.time() - started, 2)
    return {**summary, "trained": list(speed), "samples_per_second": speed, "seconds": took}


def _stored(config: RunConfig, name: str, arm: str, key: str) -> bool:
    """Whether the newest run of an arm is the one that `key` decides."""
    stored = files.latest(runs.folder(config.store.root, run_name(name, arm)))
    return stored is not None and stored.meta["metrics"].get("key") == key


def _fit(config: RunConfig, name: str, arm: str, data: Samples) -> Run:
    plugin = config.models[name]
    with progress(f"{name} {arm} features" if arm != "permuted" else f"{name} permuted features") as on_progress:
        return fit(
            data,
            kind=plugin.kind,
            options=plugin.options,  # type: ignore[arg-type]
            config=config.train,
            progress=in_batches(on_progress),
        )


def view(taken: Snapshot, arm: str) -> Snapshot:
    """The snapshot as an arm sees it: without feature sets, with them, or with strangers' vectors."""
    sets: Mapping[str, FeatureSet] = {}
    if arm == "with":
        sets = taken.features
    elif arm == "permuted":
        sets = {name: permuted(feature) for name, feature in taken.features.items()}
    lineage = {**taken.lineage, "features": taken.lineage["features"] if sets else {}}
    return Snapshot(taken.dataset, taken.samples, sets, lineage)


def _judge(run: Run, view: Snapshot) -> Evaluation:
    encoded = samples.encode(
        view, run.config.samples, vocabulary=run.vocabulary, statistics=run.statistics, features=list(view.features)
    )
    return evaluation(view, score(run.model, encoded, "test"))


def _compared(config: RunConfig, judged: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Metrics of every arm, and what each gains over the base model, with paired intervals over users."""
    cold = config.compare.cold_at_most
    if config.compare.pairs is not None:
        pairs = read_pairs(config.compare.pairs)
        judged = {arm: replace(result, pairs=pairs) for arm, result in judged.items()}
    said: dict[str, Any] = {}
    for arm, result in judged.items():
        slices = report(result, cold_at_most=cold)
        said[arm] = {
            f"{prefix}{metric}": slices[name][metric]
            for prefix, name in SLICES.items()
            if name in slices
            for metric in ("auc", "logloss", "rows")
        }
    for arm, name in (("with", "gain"), ("permuted", "permuted_gain")):
        if arm in judged and "without" in judged:
            said[name] = _gains(judged["without"], judged[arm], resamples=config.compare.resamples, cold_at_most=cold)
    return said


def _gains(base: Evaluation, other: Evaluation, *, resamples: int, cold_at_most: int) -> dict[str, Any]:
    gains = {}
    for metric in ("auc", "logloss"):
        found = compare(base, other, metric=metric, resamples=resamples, cold_at_most=cold_at_most)
        for prefix, name in SLICES.items():
            if name in found and not found[name].reason:
                d = found[name]
                gains[f"{prefix}{metric}"] = {"mean": d.difference, "low": d.low, "high": d.high}
    return gains


def _key(config: RunConfig, name: str, arm: str, view: Snapshot) -> str:
    """Hash of everything that decides a trained model: data, features, labels, split, and its configuration."""
    lineage = {key: value for key, value in view.lineage.items() if key != "features" or arm != "without"}
    lineage = json.loads(json.dumps(lineage, default=str))
    for made in lineage.get("features", {}).values():
        made.pop("version", None)
    model, train = config.models[name].model_dump(mode="json"), config.train.model_dump(mode="json")
    return digest([RECIPE, arm, lineage, model, train])
