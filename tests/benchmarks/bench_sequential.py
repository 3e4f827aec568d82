"""How fast does SASRec train, and how fast is the whole catalogue ranked? One thread, processor seconds.

python -m tests.benchmarks.bench_sequential [--data FOLDER_OF_ML_1M] [--kinds sasrec,bert4rec,gru4rec,item_llama]

MovieLens 1M, leave-last-out, width 64, length 200, batches of 128, full softmax over 3,704 items; without the data,
sequences of the same lengths made at random. Processor seconds, so that a busy machine changes little.
"""

import argparse
import contextlib
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from ctr_models.sequential import zoo
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.sequences import Queries, Sequences, sequences
from ctr_models.sequential.train import Progress, TrainConfig, fit
from storage import plugins
from storage.ingest import ingest
from storage.split import LeakageWarning, LeaveLastOut

WARM_UP, STEPS = 3, 30
BATCH = 128


class Enough(Exception):
    """The steps that were to be measured are done."""


def made_up() -> Sequences:
    """6,040 sequences of 18 to 2,000 items, about as long as those of MovieLens 1M."""
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(4.6, 0.9, 6040)).astype(int), 18, 2000)
    histories = Histories.of([random.integers(1, 3705, many) for many in lengths])
    users = pl.Series([str(u) for u in range(6040)])
    asked = Queries(users, histories, np.ones(6040, np.int32))
    items = pl.Series(["", *(str(i) for i in range(3704))])
    counts = np.bincount(histories.item, minlength=3705)
    return Sequences(items, 3704, histories, {"validation": asked, "test": asked}, counts)


def training(data: Sequences, kind: str) -> float:
    """Sequences a processor second over `STEPS` batches."""
    marks: list[float] = []

    def note(progress: Progress) -> None:
        marks.append(time.process_time())
        if len(marks) == WARM_UP + STEPS:
            raise Enough

    config = TrainConfig(batch_size=BATCH, epochs=1, threads=1)
    with contextlib.suppress(Enough):
        fit(data, kind=kind, options=plugins.load(zoo, kind).Config(), config=config, progress=note)
    return STEPS * BATCH / (marks[-1] - marks[WARM_UP - 1])


def ranking(data: Sequences) -> float:
    """Users a processor second whose whole catalogue is scored and ranked."""
    one = TrainConfig(epochs=1, threads=1, validation_queries=1)
    few = Sequences(data.items, data.n_known, data.train.take(np.arange(200)), data.queries, data.counts)
    model = fit(few, kind="sasrec", options=plugins.load(zoo, "sasrec").Config(), config=one).model
    started = time.process_time()
    rank(ModelScorer(model, data.n_items), data.queries["test"])
    return len(data.queries["test"]) / (time.process_time() - started)


def main() -> None:
    """Print one line for each kind, and one for ranking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument("--kinds", default=",".join(plugins.available(zoo)))
    asked = parser.parse_args()
    if (asked.data / "ratings.dat").is_file():
        with warnings.catch_warnings(action="ignore", category=LeakageWarning):
            data = sequences(ingest("movielens", {"path": asked.data}).dataset, LeaveLastOut())
    else:
        print(f"  no MovieLens 1M in {asked.data}: sequences are made up")
        data = made_up()
    for kind in asked.kinds.split(","):
        print(f"  {kind}: {training(data, kind):,.0f} sequences/s trained", flush=True)
    print(f"  full ranking of {data.n_items:,} items: {ranking(data):,.0f} users/s")


if __name__ == "__main__":
    main()
