"""How is a study of CTR models run? What is not done yet is fitted, then everything is judged, then the tables stand.

Every part (a model in an arm on a fraction of the rows with a seed) is published as soon as it is fitted; a study that
was stopped goes on where it was, and a part whose data and configuration are unchanged is not fitted again. Where no
part and no setting changed, the published tables stand as they are.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import polars as pl

from ctr_models.train import cpu_threads
from flows import learning
from flows.config import RunConfig
from flows.progress import progress
from flows.studies.ctr.claims import savings
from flows.studies.ctr.config import CTRStudyConfig
from flows.studies.ctr.estimate import estimate
from flows.studies.ctr.judge import Judged
from flows.studies.ctr.plan import Plan
from flows.studies.ctr.rows import guard_time
from flows.studies.ctr.tables import tables
from flows.studies.ctr.work import Fitted, Group, Judging, Looked, make
from flows.studies.page import ctr as page
from flows.studies.parts import REPORT, keep, publish_tables, published
from flows.studies.processes import spread
from storage import files
from storage.errors import ConfigError

CORES = os.cpu_count() or 1
JUDGING = 0.02
"""What judging a part takes, beside the rows of fitting it: a guess for the progress bar."""


def study(run: RunConfig, name: str, *, processes: int | None = None) -> dict[str, Any]:
    """Run the study of section `name` from where it was left, on every core by default; a summary with the claims.

    Raises ConfigError where the run has no such section, StoreError where the store lacks what it names or a text is
    not older than the rows that read it.
    """
    started = time.time()
    plan, guard = _planned(run, name)
    missing = len(plan.missing())
    root = run.store.root
    version = None if missing else published(root, name, plan.key())
    if version is None:
        judged = _work(run, plan, processes=processes or CORES)
        made = tables(plan, judged)
        meta = {**plan.protocol(), "guard": guard, "savings": savings(plan.study, made["claims"])}
        shown = page.render(made, {**plan.heading(), "Time guard": guard})
        version = publish_tables(root, name, made, meta, key=plan.key(), page=shown)
    return {
        "study": name,
        "results": str(version.path / "results.parquet"),
        "page": str(version.path / REPORT),
        "parts": len(plan.fits),
        "computed": missing,
        "claims": files.read_table(version, "claims.parquet").to_dicts(),
        **{key: version.meta[key] for key in ("tuning", "warnings", "guard", "savings")},
        "seconds": round(time.time() - started, 1),
    }


def dry_run(run: RunConfig, name: str, *, processes: int | None = None) -> dict[str, Any]:
    """What the study would do, and how long it may take; nothing is written."""
    plan, guard = _planned(run, name)
    return {"study": name, "guard": guard, **plan.protocol(), **estimate(plan, processes=processes or CORES)}


def _planned(run: RunConfig, name: str) -> tuple[Plan, str]:
    section: CTRStudyConfig | None = getattr(run, name)
    if section is None:
        raise ConfigError(f"the run has no section [{name}], so there is nothing to study")
    if not run.models:
        raise ConfigError("the run has no [models], so there is nothing to study")
    taken = learning.snapshot(run)
    return Plan(run, name, section, taken), guard_time(taken)


def _work(run: RunConfig, plan: Plan, *, processes: int) -> dict[tuple[str, str, float], list[Judged]]:
    """Fit what is missing, the longest first, then judge every part."""
    waiting: list[Group | Judging] = list(plan.ready())
    waiting += [plan.judging(part) for part in plan.parts.values()]
    total = sum(fit.looks for fit in plan.missing()) + JUDGING * sum(fit.looks for fit in plan.fits.values())
    judged: dict[tuple[str, str, float, int], Judged] = {}
    done = 0.0

    with progress(plan.name.replace("_", " ")) as on_progress, cpu_threads(run.train.threads):

        def hear(said: Looked | Fitted | Judged) -> None:
            nonlocal done
            if isinstance(said, Looked):
                done += said.rows
            elif isinstance(said, Judged):
                judged[said.model, said.arm, said.fraction, said.seed] = said
                done += JUDGING * plan.fits[said.model, said.arm, said.fraction, said.seed].looks
            else:
                scores = {"scores": pl.DataFrame({"score": said.scores})}
                part = keep(run.store.root, plan.part_name(said.fit), said.fit.key, scores, said.meta)
                waiting.extend(plan.keep(said.fit, part))
                waiting.sort(key=lambda job: job.looks if isinstance(job, Group) else 0, reverse=True)
            on_progress(int(done), int(total))

        context = (run, plan.study)
        spread(make, context, waiting, hear, processes=processes, threads=max(1, CORES // processes))
    return _by_seed(plan, judged)


def _by_seed(
    plan: Plan, judged: Mapping[tuple[str, str, float, int], Judged]
) -> dict[tuple[str, str, float], list[Judged]]:
    found: dict[tuple[str, str, float], list[Judged]] = {}
    for model, arm, fraction, seed in plan.fits:
        found.setdefault((model, arm, fraction), []).append(judged[model, arm, fraction, seed])
    return found
