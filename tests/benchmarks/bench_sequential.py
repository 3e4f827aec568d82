"""How fast does SASRec train beside RecTools 0.19, how well, and how fast is the whole catalogue ranked?

python -m tests.benchmarks.bench_sequential [--full] [--who sasrec,rectools] [--data FOLDER_OF_ML_1M] [--beauty FOLDER]

MovieLens 1M, leave-last-out: SASRec of one width, length, batch size and loss (softmax over all items) in both, and
our other kinds beside it. Without the data, sequences of about those lengths are made at random. By default speed only,
by turns, the better turn of each: sequences a processor second, which a busy machine changes little, and a second of
the clock. `--full` trains all of `--who` to the end, or for `--epochs`, stops on the validation queries and ranks the
test queries once; small batches need fewer epochs, at nearly the same seconds each.

RecTools lives in an environment of its own: RECTOOLS_PYTHON names its interpreter, else one is made (`_environment`).
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from ctr_models.sequential import zoo
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.metrics import hits, ndcg
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.sequences import Queries, Sequences, sequences
from ctr_models.sequential.train import Progress, TrainConfig, fit
from storage import plugins
from storage.ingest import ingest
from storage.split import LeakageWarning, LeaveLastOut
from tests.benchmarks._environment import python_with

RECTOOLS = "0.19.0"
OTHERS = ("bert4rec", "gru4rec", "item_llama")
WHO = ("sasrec", "rectools", *OTHERS)
WARM_UP, STEPS, TURNS = 2, 10, 2
OPTIONS = {"width": 64, "blocks": 2, "heads": 1, "dropout": 0.2, "learning_rate": 1e-3}
CONFIG = TrainConfig(max_length=200, batch_size=128, patience=10)


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


def ours(data: Sequences, kind: str, threads: int) -> dict[str, float]:
    """Seconds of `STEPS` batches, by the clock on the wall and of processors."""
    marks: list[tuple[float, float]] = []

    def note(progress: Progress) -> None:
        marks.append((time.perf_counter(), time.process_time()))
        if len(marks) == WARM_UP + STEPS:
            raise Enough

    module = plugins.load(zoo, kind)
    options = module.Config(**OPTIONS) if kind == "sasrec" else module.Config()
    with contextlib.suppress(Enough):
        once = CONFIG.model_copy(update={"epochs": 1, "threads": threads})
        fit(data, kind=kind, options=options, config=once, progress=note)
    first, last = marks[WARM_UP - 1], marks[-1]
    return {"wall": last[0] - first[0], "processor": last[1] - first[1]}


def theirs(python: str, data: Sequences, task: str, config: TrainConfig) -> dict[str, float]:
    """The same of RecTools, or how good it becomes."""
    train, asked = data.train, data.queries
    rows = [(np.repeat(np.arange(len(train)), train.lengths), train.item, 0)]
    if task == "quality":  # leave-last-out: one query of each a user, in the users' order
        of_test = np.isin(asked["test"].users.to_numpy(), asked["validation"].users.to_numpy())
        rows += [(np.flatnonzero(of_test), asked["validation"].target, 1)]
        rows += [(np.arange(len(asked["test"])), asked["test"].target, 2)]
    user, item, part = (
        np.concatenate(column) for column in zip(*((u, i, np.full(len(u), p)) for u, i, p in rows), strict=True)
    )
    told = config.model_dump(include={"max_length", "batch_size", "epochs", "patience", "threads", "seed"})
    spec = {**OPTIONS, **told, "task": task, "steps": STEPS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps({**spec, "warm_up": WARM_UP}))
        np.savez(folder / "rows.npz", user=user, item=item, part=part, place=np.arange(len(user)))
        script = Path(__file__).with_name("_rectools.py")
        done = subprocess.run([python, str(script), str(folder)], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("RecTools failed, as said above")
    return json.loads(done.stdout.splitlines()[-1])


def speed(python: str | None, data: Sequences, threads: int) -> None:
    """One line for SASRec and RecTools, by turns."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(TURNS):
        found["ours"].append(ours(data, "sasrec", threads))
        if python is not None:
            once = CONFIG.model_copy(update={"epochs": 1, "threads": threads})
            found["theirs"].append(theirs(python, data, "speed", once))
    for clock in ("processor", "wall"):
        rates = {
            who: STEPS * CONFIG.batch_size / min(turn[clock] for turn in turns) for who, turns in found.items() if turns
        }
        ratio = f"; RecTools {rates['theirs']:,.0f}, ratio {rates['ours'] / rates['theirs']:.2f}" if python else ""
        print(f"  sasrec, {threads} threads: {rates['ours']:,.0f} sequences a {clock} second{ratio}", flush=True)


def quality(python: str | None, data: Sequences, who: list[str], config: TrainConfig) -> None:
    """One line each: test metrics of the epoch that validation likes most, and seconds an epoch."""
    for kind in who:
        if kind == "rectools":
            if python is not None:
                reach("RecTools' SASRec", theirs(python, data, "quality", config))
            continue
        module = plugins.load(zoo, kind)
        options = module.Config(**OPTIONS if kind == "sasrec" else {})
        run = fit(data, kind=kind, options=options, config=config, progress=_epoch_by_epoch(kind))
        ranks = rank(ModelScorer(run.model, data.n_items), data.queries["test"]).ranks
        said = {"ndcg@10": ndcg(ranks, 10).mean(), "hr@10": hits(ranks, 10).mean()}
        said |= {"epochs": len(run.metrics["epochs"]), "seconds_per_epoch": run.metrics["seconds_per_epoch"]}
        reach(kind, said)


def _epoch_by_epoch(kind: str) -> Callable[[Progress], None]:
    """Says on stderr how each epoch began: what validation thought of the ones before it."""

    def say(at: Progress) -> None:
        if at.batch == 1:
            print(f"    {kind}: epoch {at.epoch} of {at.epochs}, validation NDCG@10 {at.ndcg:.4f}", file=sys.stderr)

    return say


def reach(who: str, said: dict[str, float]) -> None:
    """How good somebody became, and how fast."""
    print(
        f"  {who}: test NDCG@10 {said['ndcg@10']:.4f}, HR@10 {said['hr@10']:.4f} after {said['epochs']} epochs of "
        f"{said['seconds_per_epoch']:.1f} s",
        flush=True,
    )


def ranking(data: Sequences, what: str) -> None:
    """One line: users a processor second whose whole catalogue is scored and ranked, target and 20 best items."""
    one = TrainConfig(max_length=CONFIG.max_length, epochs=1, threads=1, validation_queries=1)
    few = Sequences(data.items, data.n_known, data.train.take(np.arange(200)), data.queries, data.counts)
    model = fit(few, kind="sasrec", options=plugins.load(zoo, "sasrec").Config(**OPTIONS), config=one).model
    started = time.process_time()
    rank(ModelScorer(model, data.n_items), data.queries["test"])
    many = len(data.queries["test"])
    rate = many / (time.process_time() - started)
    print(
        f"  full ranking of {data.n_items:,} items, {what}: {rate:,.0f} of {many:,} users a processor second",
        flush=True,
    )


def beauty(folder: Path) -> Sequences:
    """Amazon Beauty, leave-last-out: a query of every user."""
    table = {"path": str(folder / "interactions.csv"), "user": "user_id", "item": "item_id", "position": "position"}
    items = {"path": str(folder / "items.csv"), "item": "item_id", "title": "title", "keep_untitled": True}
    made = ingest("csv", {"name": "amazon-beauty", "domain": "beauty", "interactions": table, "items": items})
    with warnings.catch_warnings(action="ignore", category=LeakageWarning):
        return sequences(made.dataset, LeaveLastOut())


def main() -> None:
    """Print a line for each thing measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--epochs", type=int, default=100, help="of --full, at most")
    parser.add_argument("--batch", type=int, default=CONFIG.batch_size, help="sequences of a batch of --full")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument("--beauty", type=Path, default=Path("../shared/data/amazon-beauty"))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--who", default=",".join(WHO), help="of --full, and in which order")
    asked = parser.parse_args()
    print(f"sequential models, beside RecTools {RECTOOLS}:")
    if (asked.data / "ratings.dat").is_file():
        with warnings.catch_warnings(action="ignore", category=LeakageWarning):
            data = sequences(ingest("movielens", {"path": asked.data}).dataset, LeaveLastOut())
    else:
        print(f"  no MovieLens 1M in {asked.data}: sequences are made up")
        data = made_up()
    python = python_with("rectools", RECTOOLS, extras="[torch]")
    threads = [int(number) for number in asked.threads.split(",")]
    if asked.full:
        told = {"threads": threads[-1], "epochs": asked.epochs, "batch_size": asked.batch}
        quality(python, data, asked.who.split(","), CONFIG.model_copy(update=told))
        return
    for number in threads:
        speed(python, data, number)
    for kind in OTHERS:
        rate = STEPS * CONFIG.batch_size / ours(data, kind, 1)["processor"]
        print(f"  {kind}: {rate:,.0f} sequences a processor second", flush=True)
    ranking(data, "MovieLens 1M")
    if (asked.beauty / "interactions.csv").is_file():
        ranking(beauty(asked.beauty), "Amazon Beauty")


if __name__ == "__main__":
    main()
