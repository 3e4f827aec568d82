"""How fast do we train, and how well, beside FuxiCTR 2.3? The same model, rows, fields, batch size and threads.

python -m tests.benchmarks.bench_train [--full] [--data FOLDER_OF_ML_1M] [--models deepfm,dcnv2,din] [--threads 2]

By default speed only: samples/s of a few hundred steps, FuxiCTR fed with ready tensors (the best any loader could do)
and by its own loader; ours gathers its batches in the measured time. `--full` trains both to the end with the same
hyper-parameters, stops both on the validation rows, and compares their AUC on the test rows once.

FuxiCTR lives in an environment of its own: FUXICTR_PYTHON names its interpreter, else one is made under
~/.cache/nightshift (2 GB, from the package index). Without FuxiCTR or MovieLens 1M the benchmark says so and ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ctr_models import zoo
from ctr_models.evaluate import compare, evaluation, report
from ctr_models.samples import Samples, encode
from ctr_models.train import TrainConfig, fit, score
from ctr_models.zoo import NetworkConfig
from storage import plugins
from storage.ingest import ingest
from storage.snapshot import Snapshot, take_snapshot
from storage.split import global_time

FUXICTR = "2.3.10"
STEPS, WARM_UP = 60, 10


def fuxictr_python() -> str | None:
    """An interpreter that has FuxiCTR, made where there is none; None where it cannot be made."""
    if named := os.environ.get("FUXICTR_PYTHON"):
        return named
    folder = Path.home() / ".cache" / "nightshift" / f"fuxictr-{FUXICTR}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"  making an environment with FuxiCTR {FUXICTR} in {folder}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            torch_version = torch.__version__.split("+")[0]
            wanted = [f"torch=={torch_version}", f"fuxictr=={FUXICTR}"]
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"  no FuxiCTR: {error}")
            return None
        (folder / "complete").touch()
    return str(python)


def columns_of(samples: Samples, places: torch.Tensor, kind: str) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """The rows as FuxiCTR wants them: every field and every place of the history as its own integers from 1.

    A set of genres is one value, for target and history alike: FuxiCTR has no lists within a list. For DeepFM and
    DCNv2 the liked and the disliked history are two lists each, for DIN one list with its ratings.
    """
    tables, batch = samples.tables, samples.batch(places)
    stored: dict[str, np.ndarray] = {}
    columns: dict[str, dict] = {}

    def add(name: str, values: np.ndarray, size: int, **more: object) -> None:
        name = name.replace(".", "_")  # FuxiCTR names modules by columns
        stored[name] = values.astype(np.int32)
        columns[name] = {"size": size, **more}

    def own(field_rows: np.ndarray, offset: int) -> np.ndarray:
        return np.maximum(field_rows - offset + 1, 0)

    vocabulary = tables.vocabulary
    for place, field in enumerate(vocabulary.of("user", "category", "number")):
        add(field.name, own(tables.users.single[batch.user_B, place].numpy(), field.offset), field.size + 1)
    for place, field in enumerate(vocabulary.of("history", "count", "share")):
        add(field.name, own(batch.context_BC[:, place].numpy(), field.offset), field.size + 1)
    of_item: list[tuple[str, np.ndarray, int]] = []
    for place, field in enumerate(vocabulary.of("item", "category", "number")):
        of_item.append((field.name, own(tables.items.single[:, place].numpy(), field.offset), field.size + 1))
    for field, values in zip(vocabulary.of("item", "list"), tables.items.lists, strict=True):
        codes = np.unique(values.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
        of_item.append((field.name, codes + (codes.min() > 0), int(codes.max()) + 2))
    history, length = batch.history_BL.numpy(), batch.history_BL.shape[1]
    for name, codes, size in of_item:
        add(name, codes[batch.item_B.numpy()], size)
        if kind == "din":
            add(f"history:{name}", codes[history], size, length=length, share=name.replace(".", "_"))
        else:
            for liked in (True, False):
                chosen = history * (batch.liked_BL.numpy() == liked)
                prefix = "liked" if liked else "disliked"
                add(f"{prefix}:{name}", codes[chosen], size, length=length, share=name.replace(".", "_"))
    if kind == "din":  # the target has no rating: a value of its own, always the same
        size = vocabulary.named("history.rating").size
        add("rating", np.full(len(places), size + 1), size + 2)
        add("history:rating", batch.rating_BL.numpy(), size + 2, length=length, share="rating")
    stored["label"] = samples.label[places].numpy().astype(np.int32)
    return stored, columns


def theirs(
    python: str, samples: Samples, kind: str, options: NetworkConfig, config: TrainConfig, *, task: str
) -> tuple[dict[str, float], np.ndarray | None]:
    """FuxiCTR's samples/s, or its validation AUC and its scores of the test rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns: dict[str, dict] = {}
        for split in ("train", "validation", "test") if task == "quality" else ("train",):
            places = samples.split[split]
            if task == "speed":
                places = places[torch.randperm(len(places))[: config.batch_size * (STEPS + WARM_UP)]]
            stored, columns = columns_of(samples, places, kind)
            np.savez(folder / f"{split}.npz", **stored)  # type: ignore[arg-type]
            del stored
        own = [key for key in columns if key.startswith("item_")] + ["rating"] * (kind == "din")
        spec = {
            **options.model_dump(mode="json"),
            "kind": kind,
            "task": task,
            "columns": columns,
            "threads": config.threads,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "epochs": config.epochs,
            "steps": STEPS,
            "warm_up": WARM_UP,
            "targets": own,
            "sequences": [f"history:{key}" for key in own],
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        script = Path(__file__).with_name("_fuxictr.py")
        done = subprocess.run(
            [python, "-W", "ignore", str(script), str(folder)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"FuxiCTR failed:\n{done.stderr[-3000:]}")
        scores = np.load(folder / "scores.npy").astype(np.float32) if task == "quality" else None
        return json.loads(done.stdout.splitlines()[-1]), scores


def our_speed(samples: Samples, kind: str, options: NetworkConfig, config: TrainConfig) -> float:
    """Samples/s of training, batches gathered in the measured time, as FuxiCTR's: after a warm-up."""
    started: list[float] = []
    stopped: list[float] = []

    def clock(at: object) -> None:
        step = at.batch  # type: ignore[attr-defined]
        if step == WARM_UP:
            started.append(time.perf_counter())
        if step == WARM_UP + STEPS:
            stopped.append(time.perf_counter())

    rows = samples.split["train"][torch.randperm(len(samples.split["train"]))]
    some = {**samples.split, "train": rows[: config.batch_size * (STEPS + WARM_UP)]}
    once = config.model_copy(update={"epochs": 1})
    fit(_with_split(samples, some), kind=kind, options=options, config=once, progress=clock)
    return STEPS * config.batch_size / (stopped[0] - started[0])


def _with_split(samples: Samples, split: dict[str, torch.Tensor]) -> Samples:
    return Samples(**{**{name: getattr(samples, name) for name in samples.__dataclass_fields__}, "split": split})


def speed(python: str, samples: Samples, kind: str, config: TrainConfig) -> None:
    """One line: samples/s of both and the ratios. Both run twice, by turns; the better run of each counts."""
    options = plugins.load(zoo, kind).Config()
    ours, fed, own = 0.0, 0.0, 0.0
    for _ in range(2):
        ours = max(ours, our_speed(samples, kind, options, config))
        said, _ = theirs(python, samples, kind, options, config, task="speed")
        fed, own = max(fed, said["in_memory"]), max(own, said["own_loader"])
    print(
        f"  {kind}: {ours:,.0f} samples/s; FuxiCTR {fed:,.0f} fed with ready tensors, ratio {ours / fed:.2f}; "
        f"{own:,.0f} by its own loader, ratio {ours / own:.2f}",
        flush=True,
    )


def quality(python: str, taken: Snapshot, samples: Samples, kind: str, config: TrainConfig) -> None:
    """One line: test AUC of both, once, and the paired difference."""
    options = plugins.load(zoo, kind).Config()
    run = fit(samples, kind=kind, options=options, config=config)
    mine = evaluation(taken, score(run.model, samples, "test"))
    said, scores = theirs(python, samples, kind, options, config, task="quality")
    assert scores is not None
    other = evaluation(taken, scores)
    gain = compare(other, mine)["all"]
    best = max(epoch["auc"] for epoch in run.metrics["epochs"])
    print(
        f"  {kind}: test AUC {report(mine)['all']['auc']:.4f} (validation {best:.4f}, {run.metrics['best_epoch']} "
        f"epochs), FuxiCTR {report(other)['all']['auc']:.4f} (validation {said['validation_auc']:.4f}); difference "
        f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        flush=True,
    )


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--data", default="../shared/data/ml-1m")
    parser.add_argument("--models", default="deepfm,dcnv2,din")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    print(f"training, beside FuxiCTR {FUXICTR}:")
    if not (Path(asked.data) / "ratings.dat").is_file():
        print(f"  skipped, no MovieLens 1M in {asked.data}")
        return
    python = fuxictr_python()
    if python is None:
        return
    config = TrainConfig(threads=asked.threads, patience=2)  # FuxiCTR waits two epochs as well
    dataset = ingest("movielens", {"path": asked.data}).dataset
    split = partial(global_time, test_after=975768404, validation=0.1)
    taken = take_snapshot(dataset, rating_above=3, min_history=5, split=split)
    counts = dict(taken.samples.group_by("split").agg(pl.len()).iter_rows())
    samples = encode(taken, config.samples)
    print(f"  {counts['train']:,} train, {counts['validation']:,} validation, {counts['test']:,} test rows; ", end="")
    print(f"batch {config.batch_size:,}, {asked.threads} threads", flush=True)
    for kind in asked.models.split(","):
        if asked.full:
            quality(python, taken, samples, kind, config)
        else:
            speed(python, samples, kind, config)


if __name__ == "__main__":
    main()
