"""How is a sequential model kept? A version of `<root>/sequential_runs/<name>`: configuration, items, weights, metrics.

No pickles: JSON and safetensors only. Loaded on the same machine, a run gives the same scores to the last bit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from ctr_models.sequential import zoo
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.model import SequentialModel
from ctr_models.sequential.reduction import ItemInit, Reduction
from ctr_models.sequential.train import Run, TrainConfig
from storage import files, plugins
from storage.errors import StoreError

MEAN, COMPONENTS = "reduction.mean", "reduction.components"


def folder(root: Path, name: str) -> Path:
    """Where the versions of sequential run `name` are. Raises ConfigError where it is no name."""
    return files.named(root / "sequential_runs", name)


def save_run(root: Path, name: str, run: Run) -> files.Version:
    """Publish a run, or return the latest version where it holds the same model of the same data."""
    config = {
        "kind": run.kind,
        "options": run.options.model_dump(mode="json"),
        "train": run.config.model_dump(mode="json"),
        "init": run.init and run.init.model_dump(mode="json"),
        "encoder": run.encoder,
    }
    tensors = dict(run.model.state_dict())
    if run.reduction is not None:
        tensors[MEAN] = torch.from_numpy(run.reduction.mean)
        tensors[COMPONENTS] = torch.from_numpy(run.reduction.components)
    weights = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    items, lineage = json.dumps(run.items[1:], ensure_ascii=False), json.dumps(run.lineage, sort_keys=True, default=str)
    digest = hashlib.sha256(weights)
    for text in (_json(config), items, lineage):
        digest.update(b"\0" + text.encode())
    return files.publish(
        folder(root, name),
        {
            "config.json": lambda path: path.write_text(_json(config), encoding="utf-8"),
            "items.json": lambda path: path.write_text(items, encoding="utf-8"),
            "weights.safetensors": lambda path: path.write_bytes(weights),
            "metrics.json": lambda path: path.write_text(_json(dict(run.metrics)), encoding="utf-8"),
        },
        content_hash=digest.hexdigest(),
        meta={"model": run.kind, "lineage": json.loads(lineage), "metrics": dict(run.metrics)},
    )


def load_run(root: Path, name: str, version: int | None = None) -> Run:
    """Read a version (the latest by default), every byte checked. Raises StoreError where there is none, or damage."""
    found = files.version(folder(root, name), version)
    config = json.loads(files.checked(found, "config.json").read_text(encoding="utf-8"))
    items = json.loads(files.checked(found, "items.json").read_text(encoding="utf-8"))
    metrics = json.loads(files.checked(found, "metrics.json").read_text(encoding="utf-8"))
    try:
        weights = safetensors.torch.load(files.checked(found, "weights.safetensors").read_bytes())
        init, reduction = None, None
        if config["init"] is not None:
            init = ItemInit(**config["init"])
            reduction = Reduction(weights.pop(MEAN).numpy(), weights.pop(COMPONENTS).numpy())
        options = plugins.load(zoo, config["kind"]).Config(**config["options"])
        train = TrainConfig(**config["train"])
        model = SequentialModel(
            config["kind"],
            options,
            len(items),
            max_length=train.max_length,
            text=reduction and _blank(len(items), reduction.width),
            text_trainable=init is None or init.trainable,
        )
        model.load_state_dict(weights)
    except (SafetensorError, ValidationError, RuntimeError, KeyError, TypeError) as error:
        raise StoreError(f"{found.path} was written by another version of nightshift: {error}") from error
    model.eval()
    lineage = found.meta["lineage"]
    return Run(
        config["kind"], options, train, model, ("", *items), init, reduction, config["encoder"], metrics, lineage
    )


def _blank(n_items: int, width: int) -> ItemText:
    """Text of the right shape, to be overwritten by the stored weights."""
    return ItemText(np.zeros((n_items + 1, width), np.float32), np.zeros(n_items + 1, bool))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
