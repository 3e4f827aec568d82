"""How is a trained model kept? A version of `<root>/runs/<name>`: configuration, vocabulary, weights, metrics.

No pickles: JSON and safetensors only. Loaded on the same machine, a run gives the same scores to the last bit.
"""

import copy
import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from ctr_models import zoo
from ctr_models.model import CTRModel
from ctr_models.text import TextStatistics
from ctr_models.train import Run, TrainConfig
from ctr_models.vocabulary import Vocabulary
from storage import files, plugins
from storage.errors import StoreError

MEAN, COMPONENTS = "statistics.mean.", "statistics.components."


def folder(root: Path, name: str) -> Path:
    """Where the versions of run `name` are. Raises ConfigError where it is no name."""
    return files.named(root / "runs", name)


def save_run(root: Path, name: str, run: Run) -> files.Version:
    """Publish a run, or return the latest version where it holds the same model of the same data."""
    texts = [{"name": s.name, "entity": s.entity, "encoder": s.encoder} for s in run.statistics]
    config = {
        "kind": run.kind,
        "options": run.options.model_dump(mode="json"),
        "train": run.config.model_dump(mode="json"),
        "features": texts,
    }
    means = {f"{MEAN}{s.name}": torch.from_numpy(s.mean) for s in run.statistics}
    components = {f"{COMPONENTS}{s.name}": torch.from_numpy(s.components.copy()) for s in run.statistics}
    weights = safetensors.torch.save({**run.model.state_dict(), **means, **components})
    vocabulary = run.vocabulary.to_json()
    lineage = json.dumps(run.lineage, sort_keys=True, default=str)
    digest = hashlib.sha256(weights)
    for text in (_json(config), vocabulary, lineage):
        digest.update(b"\0" + text.encode())
    return files.publish(
        folder(root, name),
        {
            "config.json": lambda path: path.write_text(_json(config), encoding="utf-8"),
            "vocabulary.json": lambda path: path.write_text(vocabulary, encoding="utf-8"),
            "weights.safetensors": lambda path: path.write_bytes(weights),
            "metrics.json": lambda path: path.write_text(_json(run.metrics), encoding="utf-8"),
        },
        content_hash=digest.hexdigest(),
        meta={"model": run.kind, "lineage": json.loads(lineage), "metrics": dict(run.metrics)},
    )


def load_run(root: Path, name: str, version: int | None = None) -> Run:
    """Read a version (the latest by default), every byte checked. Raises StoreError where there is none, or damage."""
    found = files.version(folder(root, name), version)
    config = json.loads(files.checked(found, "config.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.from_json(files.checked(found, "vocabulary.json").read_text(encoding="utf-8"))
    metrics = json.loads(files.checked(found, "metrics.json").read_text(encoding="utf-8"))
    try:
        weights = safetensors.torch.load(files.checked(found, "weights.safetensors").read_bytes())
        statistics = tuple(
            TextStatistics(
                **said,
                mean=weights.pop(MEAN + said["name"]).numpy(),
                components=weights.pop(COMPONENTS + said["name"]).numpy(),
            )
            for said in config["features"]
        )
        options = plugins.load(zoo, config["kind"]).Config(**config["options"])
        train = TrainConfig(**config["train"])
        model = CTRModel(config["kind"], options, vocabulary, statistics, train.text)
        model.load_state_dict(weights)
    except (SafetensorError, ValidationError, RuntimeError, KeyError, TypeError) as error:
        raise StoreError(f"{found.path} was written by another version of nightshift: {error}") from error
    model.eval()
    return Run(config["kind"], options, train, model, vocabulary, statistics, metrics, found.meta["lineage"])


def without_values(run: Run, gone: Mapping[str, Collection[str]]) -> tuple[Run, int]:
    """`run` that no longer knows some values of its fields (name of a field -> values), and how many those were.

    A value becomes a word that says nothing and its embedding row zero; every other row stays where it was.
    """
    fields, rows = [], []
    for field in run.vocabulary.fields:
        places = [place for place, value in enumerate(field.values) if value in gone.get(field.name, ())]
        values = list(field.values)
        for place in places:
            values[place] = f"\0{secrets.token_hex(16)}"
        fields.append(replace(field, values=tuple(values)))
        rows += [field.offset + place for place in places]
    model = copy.deepcopy(run.model)
    with torch.no_grad():
        model.table[rows] = 0
    return replace(run, model=model, vocabulary=replace(run.vocabulary, fields=tuple(fields))), len(rows)


def run_names(root: Path) -> list[str]:
    """Names of the runs that have at least one version."""
    parent = root / "runs"
    return sorted(p.name for p in parent.iterdir() if files.latest(p) is not None) if parent.is_dir() else []


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
