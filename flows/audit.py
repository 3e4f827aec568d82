"""Does anything in a data root know what it could not have known? The newest data, features and runs, audited."""

import json

from ctr_models.runs import load_run, run_names
from flows.audits import Audited, findings
from flows.config import RunConfig
from flows.learning import snapshot
from llm_features.build import prompts_cache
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
    audited = Audited(
        snapshot=taken,
        prompts=cache.fetch(sorted(source for source in sources if source in cache)),
        runs=trained,
        time_split=isinstance(config.split, ByTime),
    )
    return {"leaks": findings(audited), "runs": sorted(trained), "not_audited": others}
