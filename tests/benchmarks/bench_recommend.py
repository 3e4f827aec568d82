"""What do stored features cost when a user waits? p50 and p99 of one user's recommendations, with and without.

python -m tests.benchmarks.bench_recommend [--who deepfm,din] [--data FOLDER_OF_ML_1M]

Without that folder the embedded world is used. Vectors are random: how long a request takes does not depend on what a
text says. The two recommenders take turns on the same users.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ctr_models import zoo
from ctr_models.recommend import Recommender
from ctr_models.samples import encode
from ctr_models.train import Run, TrainConfig, fit
from storage import plugins
from storage.features import load_features, publish_features
from storage.ingest import ingest, publish_dataset
from storage.interactions import Dataset
from storage.schema import EARLIEST, FEATURES, REJECTED
from storage.snapshot import Snapshot, take_snapshot
from storage.split import ratio

DIM = 384
REQUESTS = 600


def publish(root: Path, dataset: Dataset) -> None:
    """An item text for each item, and a user text at every doubling of the history, as random unit vectors."""
    places = dataset.interactions.select(
        "user_id", "timestamp", n=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id")
    )
    users = places.filter(pl.col("n").is_in([5 * 2**i for i in range(12)]))
    users = users.select(entity_id="user_id", as_of="timestamp", n_history="n")
    zero = pl.lit(0, pl.Int32)
    items = dataset.items.select(entity_id="item_id", as_of=pl.lit(EARLIEST, pl.Int64), n_history=zero)
    for name, entity, rows in (("user_preference", "user", users), ("item_knowledge", "item", items)):
        made = rows.with_columns(
            [pl.lit(None, dtype).alias(column) for column, dtype in FEATURES.items() if column not in rows.columns]
        ).with_columns(created_at=pl.lit(0, pl.Int64), text_hash=pl.format("h{}", pl.int_range(pl.len())))
        vectors = np.random.default_rng(0).normal(size=(len(made), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        publish_features(
            root,
            name,
            entity=entity,
            rows=made.select(list(FEATURES)),
            rejected=pl.DataFrame(schema=REJECTED),
            vectors=made.select("text_hash", vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, DIM))),
            encoder="random",
            lineage={},
        )


def trained(taken: Snapshot, kind: str) -> Run:
    """One epoch: the time of a request does not depend on the weights."""
    config = TrainConfig(epochs=1, batch_size=4096)
    return fit(encode(taken, config.samples), kind=kind, options=plugins.load(zoo, kind).Config(), config=config)


def percentiles(milliseconds: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    return float(np.percentile(milliseconds, 50)), float(np.percentile(milliseconds, 99))


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument("--who", default=",".join(plugins.available(zoo)), help="networks of the zoo; all by default")
    asked = parser.parse_args()
    there = (asked.data / "ratings.dat").is_file()
    ingested = ingest("movielens", {"path": asked.data}) if there else ingest("world", {})
    dataset = ingested.dataset
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        publish_dataset(root, ingested)
        publish(root, dataset)
        features = [load_features(root, each) for each in ("item_knowledge", "user_preference")]
        taken = take_snapshot(dataset, features, rating_above=3, min_history=5, split=partial(ratio, test=0.1))
        part = taken.samples.filter(pl.int_range(pl.len()) % 10 == 0)
        taken = Snapshot(dataset, part, taken.features, taken.lineage)
        users = dataset.users["user_id"].sample(REQUESTS, with_replacement=True, seed=0).to_list()
        print(f"recommending 10 of {len(dataset.items):,} items to one user; {REQUESTS} users of {dataset.name}")
        for kind in asked.who.split(","):
            base = Snapshot(dataset, part, {}, taken.lineage)
            arms = [Recommender(trained(data, kind), root) for data in (base, taken)]
            took: list[list[float]] = [[], []]
            for place, user in enumerate([*users[:50], *users]):
                for arm, recommender in enumerate(arms):
                    started = time.perf_counter()
                    recommender.recommend(user, 10)
                    if place >= 50:  # the first ones warm up
                        took[arm].append((time.perf_counter() - started) * 1000)
            (p50, p99), (with_p50, with_p99) = percentiles(took[0]), percentiles(took[1])
            print(
                f"  {kind}: p50 {p50:.2f} ms without, {with_p50:.2f} ms with features, ratio {with_p50 / p50:.2f}; "
                f"p99 {p99:.2f} and {with_p99:.2f} ms, ratio {with_p99 / p99:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
