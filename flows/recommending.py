"""Who is recommended what? Stored for many users each night, and asked for one user at any time."""

import time

import polars as pl

from ctr_models import runs
from ctr_models.recommend import Recommender
from flows.config import RunConfig
from flows.progress import progress
from flows.retrieving import load_retrieval, retrieval_version
from storage import files
from storage.features import feature_sets, folder
from storage.ingest import load_dataset
from storage.schema import RECOMMENDATIONS, check, content_hash


def recommend_all(config: RunConfig) -> dict:
    """Store the best items of every user asked for, unless nothing they come from has changed; show one user's."""
    started, root, section = time.time(), config.store.root, config.recommend
    if not config.models or section.users == "none":
        return {}
    dataset = load_dataset(root)
    users = dataset.users["user_id"].to_list()
    users = users if section.users == "all" else users[: int(section.users)]
    run, retrieval = files.version(runs.folder(root, section.model)), retrieval_version(config)
    made_from = [run.content_hash, files.version(root / "dataset").content_hash, str(section.k), str(len(users))]
    made_from += [files.version(folder(root, name)).content_hash for name in feature_sets(root)]
    made_from += [retrieval.content_hash] if retrieval else []
    version = files.latest(root / "recommendations")
    if version is None or version.meta["made_from"] != made_from:
        rows = check(_everyone(config, users), RECOMMENDATIONS, table="recommendations")
        version = files.publish(
            root / "recommendations",
            {"recommendations.parquet": rows.write_parquet},
            content_hash=content_hash(rows, extra=made_from),
            meta={
                "run": f"{section.model} v{run.number}",
                "retrieval": section.retrieval + (f" v{retrieval.number}" if retrieval else ""),
                "made_from": made_from,
            },
        )
    rows = files.read_table(version, "recommendations.parquet")
    seconds = round(time.time() - started, 2)
    summary = {"users": len(users), "rows": len(rows), "version": version.number, "seconds": seconds}
    return {"recommendations": summary, "example": _titled(rows.filter(user_id=users[0]), dataset.items, users[0])}


def _everyone(config: RunConfig, users: list[str]) -> pl.DataFrame:
    root, section = config.store.root, config.recommend
    recommender = Recommender(runs.load_run(root, section.model), root, retrieval=load_retrieval(config))
    parts = [pl.DataFrame(schema=RECOMMENDATIONS)]
    with progress("recommendations") as on_progress:
        for done, user in enumerate(users, start=1):
            parts.append(recommender.recommend(user, section.k))
            on_progress(done, len(users))
    return pl.concat(parts)


def recommend_one(config: RunConfig, user: str, *, k: int, model: str | None = None) -> dict:
    """The best `k` items of one user by the newest run of `model`, with titles."""
    root = config.store.root
    run = runs.load_run(root, model or config.recommend.model)
    recommender = Recommender(run, root, retrieval=load_retrieval(config))
    return _titled(recommender.recommend(user, k), load_dataset(root).items, user)


def _titled(rows: pl.DataFrame, items: pl.DataFrame, user: str) -> dict:
    titled = rows.join(items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
    return {"user_id": user, "items": titled.select("rank", "item_id", "title", "score").to_dicts()}
