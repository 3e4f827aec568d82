"""How does RecTools 0.19 do on the same sequences? Runs in RecTools' own environment, started by `bench_sequential`.

_rectools.py FOLDER     holds spec.json, and rows.npz: user, item and place of each training row, as integers

Its SASRec at equal width, length, batch and loss, as its documentation uses it. Prints one line of JSON.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(Callback):
    """When each batch was done: by the clock on the wall, and in seconds of processors."""

    def __init__(self):
        self.marks = []

    def on_train_batch_end(self, *_):
        self.marks.append((time.perf_counter(), time.process_time()))


def dataset(rows, keep):
    """Rows as RecTools wants them; places stand in for times, which only order them."""
    frame = pd.DataFrame({"user_id": rows["user"][keep], "item_id": rows["item"][keep], "weight": 1.0})
    frame["datetime"] = pd.to_datetime(rows["place"][keep], unit="s")
    return Dataset.construct(frame)


def model(spec, callbacks, **trainer):
    """A SASRec of the given sizes; `trainer` are options of Lightning's."""

    def make():
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(accelerator="cpu", devices=1, logger=False, callbacks=callbacks, **quiet, **trainer)

    return SASRecModel(
        n_blocks=spec["blocks"],
        n_heads=spec["heads"],
        n_factors=spec["width"],
        dropout_rate=spec["dropout"],
        session_max_len=spec["max_length"],
        batch_size=spec["batch_size"],
        lr=spec["learning_rate"],
        loss="softmax",
        recommend_torch_device="cpu",
        get_trainer_func=make,
    )


def speed(spec, rows):
    """Seconds of `steps` batches after a warm-up."""
    wanted = spec["warm_up"] + spec["steps"]
    trained = model(spec, [Clock()], max_epochs=1, limit_train_batches=wanted).fit(dataset(rows, rows["part"] == 0))
    (clock,) = (each for each in trained.fit_trainer.callbacks if isinstance(each, Clock))  # it trained with a copy
    first, last = clock.marks[spec["warm_up"] - 1], clock.marks[-1]
    return {"wall": last[0] - first[0], "processor": last[1] - first[1]}


def quality(spec, rows):
    """The ten best items of each user for the validation and the test, by the epochs that validation likes most."""
    known, later = dataset(rows, rows["part"] == 0), dataset(rows, rows["part"] <= 1)
    answers = {part: (rows["user"][rows["part"] == part], rows["item"][rows["part"] == part]) for part in (1, 2)}
    trained = model(spec, [], max_epochs=spec["epochs"])
    best, found, waited, seconds = -1.0, {}, 0, 0.0
    done = 0
    while done < spec["epochs"] and waited < spec["patience"]:
        started = time.perf_counter()
        trained.fit_partial(known, min_epochs=1, max_epochs=1)
        seconds, done = seconds + time.perf_counter() - started, done + 1
        reached = ndcg(trained, known, *answers[1])
        print(f"    rectools: epoch {done}, validation NDCG@10 {reached[0]:.4f}, {seconds:.0f} s", file=sys.stderr)
        waited = 0 if reached[0] > best else waited + 1
        if reached[0] > best:
            best, found = reached[0], dict(zip(("ndcg@10", "hr@10"), ndcg(trained, later, *answers[2]), strict=True))
    return {**found, "validation": best, "epochs": done, "seconds_per_epoch": seconds / done}


def ndcg(trained, before, users, items):
    """NDCG@10 and HR@10 of one right item a user, items of the history left out; items nobody learned cannot be hit."""
    known = np.isin(users, before.user_id_map.external_ids)
    rows = trained.recommend(users[known], before, k=10, filter_viewed=True)
    right = rows.merge(pd.DataFrame({"user_id": users, "target": items}), on="user_id")
    place = right.loc[right["item_id"] == right["target"], "rank"].to_numpy()
    return float((1 / np.log2(place + 1)).sum() / len(users)), len(place) / len(users)


def main():
    """Measure, print."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    with np.load(folder / "rows.npz") as stored:
        rows = {name: stored[name] for name in stored.files}
    print(json.dumps({"speed": speed, "quality": quality}[spec["task"]](spec, rows)))


if __name__ == "__main__":
    main()
