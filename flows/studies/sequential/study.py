"""What does stored text add to sequential models? Models x arms x seeds under one protocol, a table, a line per claim.

Every part (a trial of the tuner, a model in an arm with a seed, a baseline, a hybrid) is published as soon as it is
done; a study that was stopped goes on where it was, and a part whose data and configuration are unchanged is not
computed again. The test queries are ranked once, by the epoch that the validation queries chose.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

from ctr_models.sequential import runs
from ctr_models.sequential.hybrids import parts_of
from ctr_models.sequential.ranking import Ranked, Scorer, rank
from ctr_models.sequential.sampled import candidates
from ctr_models.sequential.train import RECIPE, Run
from ctr_models.sequential.zoo import NetworkConfig
from flows.config import RunConfig
from flows.digests import digest
from flows.studies.page import sequential as page
from flows.studies.parts import REPORT, keep, publish_tables, stored
from flows.studies.sequential import tables
from flows.studies.sequential.config import BASE, Arm
from flows.studies.sequential.making import Recommenders, run_name
from flows.studies.sequential.tables import Part
from flows.studies.tuning import Trial, best, search
from storage import files

STUDY = "sequential"
TUNED_BY = "ndcg@10"
"""The metric of the validation queries that chooses epochs chooses options too."""


@dataclass(frozen=True)
class Planned:
    """A part that is to be there. arm and seed are "" and 0 for baselines and hybrids of them."""

    model: str
    arm: str
    seed: int
    settings: Callable[[], list]
    make: Callable[[], tuple[Scorer, Mapping[str, Any]]]

    @property
    def name(self) -> str:
        """Under which it is stored."""
        return ".".join(str(part) for part in (STUDY, self.model, self.arm, self.seed) if part != "")


class Study:
    """A configured study over the newest dataset and feature sets of a data root."""

    def __init__(self, config: RunConfig) -> None:
        """Raises as `Recommenders`."""
        self.made = Recommenders(config)
        self.config, self.data = self.made.config, self.made.data
        self.arms = {BASE: Arm(), **self.config.arms}
        self.trials = cache(self._trials)

    def run(self) -> dict[str, Any]:
        """Do what is not done yet, then write the tables; a summary with the claims."""
        started, computed, parts = time.time(), 0, []
        for planned in self.planned():
            part, is_new = self._kept(planned)
            parts.append(part)
            computed += is_new
        written = {"results": tables.results(self.config, self.data, parts)}
        written["claims"] = tables.claims(self.config, self.data, parts)
        if self.config.tuning is not None:
            pairs = [(model, arm) for model in self.config.models for arm in self.arms]
            written["tuning"] = tables.tuning({pair: self.trials(*pair) for pair in pairs})
        meta = {"split": self.config.split.kind, "parts": len(parts)}
        shown = page.render(written, self.made.described(len(parts)))
        published = publish_tables(self.made.root, STUDY, written, meta, page=shown)
        return {
            "study": STUDY,
            "results": str(published.path / "results.parquet"),
            "page": str(published.path / REPORT),
            "parts": len(parts),
            "computed": computed,
            "trials": self.config.tuning.trials if self.config.tuning else 0,
            "claims": written["claims"].to_dicts(),
            "seconds": round(time.time() - started, 1),
        }

    def planned(self) -> Iterator[Planned]:
        """Every part, each after those that it is made of."""
        for name, section in self.config.baselines.items():
            settings = [name, section.model_dump(mode="json"), *self.made.made_from(section.feature_set)]
            yield Planned(name, "", 0, lambda s=settings: s, lambda n=name: (self.made.baseline(n), {}))
        for name in self.config.models:
            for arm in self.arms:
                for seed in self.config.seeds:
                    yield Planned(
                        name,
                        arm,
                        seed,
                        lambda n=name, a=arm, s=seed: self._settings(n, a, s, self.options(n, a)),
                        lambda n=name, a=arm, s=seed: self._trained(n, a, s),
                    )
        for name, config in self.config.hybrids.items():
            trained = any(part in self.config.models for part in parts_of(config))
            for seed in self.config.seeds if trained else (0,):
                yield Planned(
                    name,
                    BASE if trained else "",
                    seed,
                    lambda n=name, c=config, s=seed: self._hybrid_settings(n, c, s),
                    lambda c=config, s=seed: (self.made.hybrid(c, s), {}),
                )

    def key(self, planned: Planned) -> str:
        """Hash of everything that can change a part."""
        sampled = [each.model_dump(mode="json") for each in self.config.sampled]
        return digest([planned.settings(), self.data.lineage, *([sampled] if sampled else [])])

    def options(self, model: str, arm: str) -> NetworkConfig:
        """The options of a model in an arm: as configured, or the best of the trials."""
        options: Any = self.config.models[model].options
        if self.config.tuning is None:
            return options
        return type(options)(**{**options.model_dump(), **best(self.trials(model, arm)).options})

    def trial_part(self, model: str, arm: str, number: int, chosen: Mapping[str, Any]) -> tuple[str, str, Any]:
        """Name and key of a trial's part, and the model's options in it."""
        options: Any = self.config.models[model].options
        tried = type(options)(**{**options.model_dump(), **chosen})
        seed = self.config.tuning.seed if self.config.tuning else 0
        key = digest(["trial", self._settings(model, arm, seed, tried), self.data.lineage])
        return f"{STUDY}.{model}.{arm}.trial-{number}", key, tried

    def search(self, model: str, arm: str, evaluate: Callable[[int, Mapping[str, Any]], float]) -> list[Trial]:
        """All trials of a model in an arm, in their order; `evaluate` as in `flows.studies.tuning.search`."""
        tuning = self.config.tuning
        assert tuning is not None
        space, options = tuning.of(model), self.config.models[model].options
        first = {name: getattr(options, name) for name in space}
        return search(space, first, trials=tuning.trials, seed=tuning.seed, evaluate=evaluate)

    def _trials(self, model: str, arm: str) -> list[Trial]:
        return self.search(model, arm, lambda number, chosen: self._tried(model, arm, number, chosen))

    def _tried(self, model: str, arm: str, number: int, chosen: Mapping[str, Any]) -> float:
        """The validation metric of a trial, kept or computed; its test queries are never looked at."""
        name, key, options = self.trial_part(model, arm, number, chosen)
        part = stored(self.made.root, name, key)
        if part is None:
            assert self.config.tuning is not None
            started, label = time.time(), f"{model} {arm} trial {number + 1} of {self.config.tuning.trials}"
            run = self.made.fitted(model, self.arms[arm], self.config.tuning.seed, options, label=label)
            version = self.made.kept(run, model, arm, f"trial-{number}")
            meta = {"model": model, "arm": arm, "trial": number, "options": dict(chosen), "run_version": version}
            meta |= {TUNED_BY: run.metrics["validation"][TUNED_BY], "best_epoch": run.metrics["best_epoch"]}
            part = keep(self.made.root, name, key, {}, {**meta, "seconds": round(time.time() - started, 1)})
        return float(part.meta[TUNED_BY])

    def _kept(self, planned: Planned) -> tuple[Part, bool]:
        """The stored part where it was made of the same, else a new one; and whether it is new."""
        key = self.key(planned)
        part = stored(self.made.root, planned.name, key)
        is_new = part is None
        if part is None:
            started = time.time()
            scorer, meta = planned.make()
            asked = self.made.data_of(self.arms.get(planned.arm, Arm()), planned.seed).queries["test"]
            ranked = rank(scorer, asked, drawn=self._drawn)
            meta = {**meta, "seconds": round(time.time() - started, 1)}
            meta |= {"model": planned.model, "arm": planned.arm, "seed": planned.seed}
            part = keep(self.made.root, planned.name, key, {"ranks": _frame(asked.users, ranked)}, meta)
        frame = files.read_table(part, "ranks.parquet")
        sampled = {each.name: frame[each.name].to_numpy() for each in self.config.sampled}
        ranks, top = frame["rank"].to_numpy(), frame["top"].to_numpy()
        return Part(planned.model, planned.arm, planned.seed, ranks, top, part.meta, sampled), is_new

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """Sampled candidates of the test queries, the same for every part."""
        return {each.name: candidates(each, self.data, self.data.queries["test"]) for each in self.config.sampled}

    def _trained(self, name: str, arm: str, seed: int) -> tuple[Scorer, Mapping[str, Any]]:
        """A model in an arm, trained and saved; with the seed of the trials it is the best of them."""
        tuning, section = self.config.tuning, self.arms[arm]
        if tuning is not None and seed == tuning.seed:
            run = self._run_of_trial(name, arm, best(self.trials(name, arm)))
        else:
            label = f"{name} {arm} seed {seed}"
            run = self.made.fitted(name, section, seed, self.options(name, arm), label=label)
        meta = {key: value for key, value in run.metrics.items() if key != "epochs"}
        meta["run_version"] = self.made.kept(run, name, arm, seed)
        if tuning is not None:
            chosen = best(self.trials(name, arm))
            meta["tuned"] = {"trials": tuning.trials, "options": dict(chosen.options)}
        return self.made.scorer(run, section, seed), meta

    def _run_of_trial(self, name: str, arm: str, trial: Trial) -> Run:
        named, key, _ = self.trial_part(name, arm, trial.number, trial.options)
        part = stored(self.made.root, named, key)
        assert part is not None
        return runs.load_run(self.made.root, run_name(name, arm, f"trial-{trial.number}"), part.meta["run_version"])

    def _settings(self, name: str, arm: str, seed: int, options: NetworkConfig) -> list:
        """What a trained part is made of."""
        section = self.arms[arm]
        model = {"kind": self.config.models[name].kind, "options": options.model_dump(mode="json")}
        train = self.config.train.model_copy(update={"seed": seed, "threads": None})
        of_text = self.made.made_from(section.item_init.feature_set if section.item_init else None)
        return [RECIPE, seed, model, section.model_dump(mode="json"), train.model_dump(mode="json"), *of_text]

    def _hybrid_settings(self, name: str, config: Any, seed: int) -> list:
        settings = [name, config.model_dump(mode="json")]
        for part in parts_of(config):
            if part in self.config.models:
                settings += self._settings(part, BASE, seed, self.options(part, BASE))
            else:
                section = self.config.baselines[part]
                settings += [section.model_dump(mode="json"), *self.made.made_from(section.feature_set)]
        return settings


def sequential(config: RunConfig) -> dict[str, Any]:
    """Run the study of a configuration, from where it was left."""
    return Study(config).run()


def _frame(users: pl.Series, ranked: Ranked) -> pl.DataFrame:
    top = pl.Series("top", ranked.top, dtype=pl.Array(pl.Int32, ranked.top.shape[1]))
    sampled = [pl.Series(name, places) for name, places in ranked.sampled.items()]
    return pl.DataFrame({"user_id": users, "rank": ranked.ranks}).with_columns(top, *sampled)
