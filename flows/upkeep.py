"""How is a data root kept well? Repair what is damaged, remove what nobody needs, erase a person who asks for it.

Each holds the writer's lock for as long as it works and leaves a catalog over what is there then.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ctr_models import runs
from flows import steps
from flows.config import RunConfig
from storage import files
from storage.cache import Cache
from storage.disk import read_sealed, write_sealed
from storage.errors import NightshiftError
from storage.features import feature_sets, folder
from storage.forget import forget_features, forget_recommendations, remember_to_forget
from storage.ingest import load_dataset, publish_without_forgotten
from storage.layout import STUDY_PARTS, folders, records
from storage.lock import WriterLock
from storage.repair import recover_texts, set_aside
from storage.schema import PROMPTS
from storage.traces import traces
from storage.vacuum import Removed, remove
from storage.vacuum import vacuum as remove_unnamed

_REST = {
    "runs": "the model must be trained again: run `nightshift train`",
    "sequential_runs": "the model must be trained again: run `nightshift train`, or the study it is of",
    "studies": "its tables come back with `nightshift study`",
    "study_parts": "it is computed again by the next `nightshift study`",
    "comparisons": "its numbers come back with `nightshift evaluate` or `nightshift train`",
    "recommendations": "they are made again by the next night",
    "nights": "what that night said is lost; its date counts as not done",
    "prompts": "its prompts are rendered again by the next `nightshift generate`",
    "encoders": "the encoder is settled anew",
    "catalog.duckdb": "rebuilt",
}


def repair(config: RunConfig) -> list[str]:
    """Set aside what is damaged, rebuild what can be rebuilt without asking a model; a sentence for each."""
    root = config.store.root
    with WriterLock(root, purpose="repair"):
        damaged = set_aside(root)
        if not damaged:
            return []
        said = [f"set aside {damage.place}: {damage.why}" for damage in damaged]
        kinds = {damage.kind for damage in damaged}
        if "dataset" in kinds:
            said.append(_again("the dataset", lambda: _ingested(config)))
        if "texts" in kinds:
            said.append(f"{recover_texts(root)} texts were taken back from published feature sets")
        if kinds & {"dataset", "texts", "vectors", "features", "prompts"}:
            said += [
                _again(f"feature set {name}", lambda name=name: _feature(config, name)) for name in config.features
            ]
        said += [f"{damage.place}: {_REST[damage.kind]}" for damage in damaged if damage.kind in _REST]
        steps.publish_catalog(config)
    return said


def vacuum(config: RunConfig, *, grace_days: float, dry_run: bool) -> list[Removed]:
    """Remove what no manifest, run or reader names and is older than the grace period; see `storage.vacuum`."""
    with WriterLock(config.store.root, purpose="vacuum"):
        removed = remove_unnamed(config.store.root, grace=86_400 * grace_days, dry_run=dry_run)
        if removed and not dry_run:
            steps.publish_catalog(config)
    return removed


def forget(config: RunConfig, user_id: str) -> dict[str, Any]:
    """Erase a person from everything under the data root, and search every byte of it afterwards.

    Returns the counts and `traces`, one sentence for each file that still speaks of the person. What no published
    version names leaves the caches too: nobody could say whose it is. Raises StoreError; may be called again.
    """
    root = config.store.root
    with WriterLock(root, purpose="forget"):
        texts = _texts_of(root, user_id)
        alone = _values_of(root, user_id)
        remember_to_forget(root, user_id)
        publish_without_forgotten(root)
        rows = sum(forget_features(root, name, user_id) for name in feature_sets(root))
        recommended = forget_recommendations(root, user_id)
        values = sum(_forget_run(root, name, alone) for name in runs.run_names(root))
        for part in folders(root / STUDY_PARTS):  # a line a user; the tables of results name nobody
            for version in files.versions(part):
                remove(version)
        for record in records(root):
            _forget_record(record, user_id)
        remove_unnamed(root, grace=0, dry_run=False)
        steps.publish_catalog(config)
        searched, found = traces(root, user_id, texts)
    counts = {"feature_rows": rows, "recommendations": recommended, "vocabulary_values": values, "texts": len(texts)}
    return {**counts, "files_searched": searched, "traces": found}


def _again(what: str, work: Any) -> str:
    try:
        return f"{what}: {work()}"
    except NightshiftError as error:
        return f"{what} cannot be rebuilt: {error}"


def _ingested(config: RunConfig) -> str:
    version = steps.ingest(config)["version"]
    return f"read again from its source as version {version}"


def _feature(config: RunConfig, name: str) -> str:
    planned = steps.plan(config, name)
    if planned["new"] and planned["estimate"]["prompt_tokens"]:
        return f"{planned['new']} texts are lost and must be written again: run `nightshift generate`"
    done = steps.generate(config, name)
    return f"version {done['version']}, {done['encoding']['encoded']} vectors encoded again"


def _texts_of(root: Path, user_id: str) -> list[str]:
    """Texts and prompts that were written for this person and for nobody else."""
    mine: set[str] = set()
    others: set[str] = set()
    prompts = Cache(root / "prompts", PROMPTS, key="source_hash")
    for name in feature_sets(root):
        for version in files.versions(folder(root, name)):
            for table in ("features", "rejected"):
                rows = files.read_table(version, f"{table}.parquet")
                user = (pl.col("entity_id") == user_id) & (version.meta["entity"] == "user")
                mine |= set(rows.filter(user)["text"].drop_nulls())
                others |= set(rows.filter(~user)["text"].drop_nulls())
                if "source_hash" in rows.columns:
                    mine |= _messages(prompts, set(rows.filter(user)["source_hash"]))
                    others |= _messages(prompts, set(rows.filter(~user)["source_hash"]))
    return sorted(text for text in mine - others if len(text) >= 20)


def _messages(prompts: Cache, sources: set[str]) -> set[str]:
    there = sorted(source for source in sources if source in prompts)
    return {message["content"] for said in prompts.fetch(there)["messages"] for message in json.loads(said)}


def _values_of(root: Path, user_id: str) -> dict[str, set[str]]:
    """Values of the users' columns that only this person has: field of a vocabulary -> values."""
    gone = {"user.user_id": {user_id}}
    if files.latest(root / "dataset") is None:
        return gone
    dataset = load_dataset(root)
    for name in dataset.attributes("user"):
        column = dataset.users.select("user_id", value=name)
        if column.schema["value"] == pl.List(pl.String):
            column = column.explode("value")
        if column.schema["value"] == pl.String:
            here = pl.col("user_id") == user_id
            gone[f"user.{name}"] = set(column.filter(here)["value"].drop_nulls()) - set(column.filter(~here)["value"])
    return gone


def _forget_run(root: Path, name: str, gone: Mapping[str, set[str]]) -> int:
    """Publish a run that no longer knows these values, and take away every version before."""
    every = files.versions(runs.folder(root, name))
    run, values = runs.without_values(runs.load_run(root, name), gone)
    kept = runs.save_run(root, name, run) if values else every[-1]
    for version in every:
        if version.number != kept.number:
            remove(version)
    return values


def _forget_record(path: Path, user_id: str) -> None:
    record = read_sealed(path)
    record.pop("seal")
    example = record["summary"].get("example") or {}
    if example.get("user_id") == user_id:
        record["summary"].pop("example")
        when = path.stat()
        write_sealed(path, record)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))  # nights are in the order of their records
