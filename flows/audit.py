"""Does anything in a data root know what it could not have known? The newest data, features and runs, audited.

And does a language model know the data set itself? Then what it writes of titles may be the data set by heart.
"""

import json
from dataclasses import asdict
from pathlib import Path

import ctr_models.sequential.runs
from ctr_models.runs import load_run, run_names
from ctr_models.sequential.sequences import sequences
from ctr_models.sequential.train import Run as SequentialRun
from flows.audits import Audited, findings
from flows.config import RunConfig
from flows.learning import snapshot
from flows.steps import open_engine
from llm_features.build import prompts_cache
from llm_features.memorisation import ROWS, probe
from storage import files
from storage.ingest import load_dataset
from storage.split import ByTime


def audit(config: RunConfig) -> dict:
    """`leaks`, one sentence each, and `not_audited`: runs that were trained on other data than the newest.

    Changes nothing. Raises StoreError where something is damaged.
    """
    root = config.store.root
    taken = snapshot(config)
    cache = prompts_cache(root)
    sources = {source for each in taken.features.values() for source in each.rows["source_hash"]}
    ours = json.loads(json.dumps({name: taken.lineage[name] for name in ("dataset", "split", "labels")}))
    trained, others = {}, []
    for name in run_names(root):
        run = load_run(root, name)
        if ours == {key: run.lineage.get(key) for key in ours}:
            trained[name] = run
        else:
            others.append(name)
    retrievers = _retrievers(root, config)
    same = [
        name for name, run in retrievers.items() if all(run.lineage.get(k) == ours[k] for k in ("dataset", "split"))
    ]
    audited = Audited(
        snapshot=taken,
        prompts=cache.fetch(sorted(source for source in sources if source in cache)),
        runs=trained,
        time_split=isinstance(config.split, ByTime),
        retrievers={name: retrievers[name] for name in same},
        sequences=sequences(taken.dataset, config.split) if same else None,
    )
    others += [name for name in retrievers if name not in same]
    return {"leaks": findings(audited), "runs": sorted([*trained, *same]), "not_audited": others}


def _retrievers(root: Path, config: RunConfig) -> dict[str, SequentialRun]:
    """The newest run of each configured retriever; a study's runs may be controls, fitted on strangers' vectors."""
    folders = {name: ctr_models.sequential.runs.folder(root, name) for name in config.retrievers}
    there = [name for name, folder in folders.items() if files.latest(folder) is not None]
    return {name: ctr_models.sequential.runs.load_run(root, name) for name in there}


def memorised(config: RunConfig, engine: str, *, rows: int) -> list[dict]:
    """Ask `engine` of [engines] to complete up to `rows` rows of each kind of the stored data; see `Probe`.

    Stores nothing. Raises ConfigError where there is no such engine or it is no model, StoreError without data.
    """
    dataset, opened = load_dataset(config.store.root), open_engine(config, engine)
    try:
        found = [
            probe(make(dataset, limit=rows, seed=0), opened, kind=kind, name=dataset.name, seed=0)
            for kind, make in ROWS.items()
        ]
    finally:
        opened.close()
    return [asdict(one) for one in found]
