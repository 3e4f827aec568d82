"""What does stored text add to sequential models? Models x arms x seeds under one protocol, a table, a line per claim.

Every part (a model in an arm with a seed, a baseline, a hybrid) is published as soon as it is ranked; a study that was
stopped goes on where it was, and a part whose data and configuration are unchanged is not computed again. The test
queries are ranked once, by the epoch that the validation queries chose.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import ctr_models.sequential.baselines
from ctr_models.sequential import controls, runs
from ctr_models.sequential.hybrids import hybrid, parts_of
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import Ranked, Scorer, rank
from ctr_models.sequential.sequences import Sequences, sequences
from ctr_models.sequential.text import Text, fit_text, item_vectors
from ctr_models.sequential.train import Run, fit
from flows.config import RunConfig
from flows.progress import progress
from flows.studies.page import sequential as page
from flows.studies.parts import REPORT, digest, keep, publish_tables, stored
from flows.studies.sequential import tables
from flows.studies.sequential.config import BASE, Arm, SequentialConfig
from flows.studies.sequential.tables import Part
from storage import files
from storage.errors import ConfigError
from storage.features import FeatureSet, load_features
from storage.ingest import load_dataset
from storage.interactions import Dataset
from storage.plugins import load

STUDY = "sequential"


class Study:
    """A configured study over the newest dataset and feature sets of a data root."""

    def __init__(self, config: RunConfig) -> None:
        """Raises ConfigError without a section [sequential], StoreError where the store lacks what it names."""
        if config.sequential is None:
            raise ConfigError("the run has no section [sequential], so there is nothing to study")
        self.config: SequentialConfig = config.sequential
        self.root: Path = config.store.root
        self.dataset: Dataset = load_dataset(self.root)
        version = files.version(self.root / "dataset")
        self.data: Sequences = sequences(self.dataset, self.config.split, lineage={"dataset": version.content_hash})
        names = sorted(self.config.feature_sets())
        self.features: dict[str, FeatureSet] = {name: load_features(self.root, name) for name in names}
        self._vectors = {name: item_vectors(feature, self.data.items) for name, feature in self.features.items()}

    def run(self) -> dict[str, Any]:
        """Do what is not done yet, then write the tables; a summary with the claims."""
        started = time.time()
        computed, parts = 0, []
        for part, is_new in self._parts():
            parts.append(part)
            computed += is_new
        table, claims = tables.results(self.config, self.data, parts), tables.claims(self.config, self.data, parts)
        meta = {"split": self.config.split.kind, "parts": len(parts)}
        found = {"results": table, "claims": claims}
        published = publish_tables(self.root, STUDY, found, meta, page=page.render(found, self._made(parts)))
        return {
            "study": STUDY,
            "results": str(published.path / "results.parquet"),
            "page": str(published.path / REPORT),
            "parts": len(parts),
            "computed": computed,
            "claims": claims.to_dicts(),
            "seconds": round(time.time() - started, 1),
        }

    def _made(self, parts: Sequence[Part]) -> dict[str, str]:
        """How the page is headed, and how it was made: the same for the same parts."""
        config, data = self.config, self.dataset
        seeds, n_queries = ", ".join(map(str, config.seeds)), len(self.data.queries["test"].users)
        train = config.train.model_dump(mode="json", exclude={"seed", "threads"})
        sets = [f"{name} v{each.version}, {each.encoder}" for name, each in self.features.items()]
        return {
            "title": f"Sequential models on {data.name}",
            "lead": f"What does stored text add? {len(config.models)} models, {1 + len(config.arms)} arms, seeds"
            f" {seeds};"
            f" {n_queries:,} test queries over {self.data.n_items:,} items, ranked in full.",
            "Dataset": f"{data.name}, {str(self.data.lineage['dataset'])[:12]}",
            "Split": json.dumps(config.split.model_dump(mode="json")),
            "Feature sets": "; ".join(sets) or "none",
            "Seeds": seeds,
            "Training, the same for every model and arm": json.dumps(train),
            "Intervals": f"{config.resamples:,} resamples of users and seeds, in pairs",
            "Cold items": f"at most {config.cold_at_most} training rows",
            "Parts": f"{len(parts)}, each ranked once on the test queries by the epoch that validation chose",
            "nightshift": importlib.metadata.version("nightshift"),
        }

    def _parts(self) -> Iterator[tuple[Part, bool]]:
        for name, baseline in self.config.baselines.items():
            settings = [name, baseline.model_dump(mode="json"), *self._versions(baseline.feature_set)]
            yield self._kept(name, "", 0, settings, lambda b=name: (self._baseline(b), {}))
        arms = {BASE: Arm(), **self.config.arms}
        for name in self.config.models:
            for arm_name, arm in arms.items():
                for seed in self.config.seeds:
                    settings = self._settings(name, arm, seed)
                    yield self._kept(
                        name,
                        arm_name,
                        seed,
                        settings,
                        lambda n=name, label=arm_name, a=arm, s=seed: self._trained(n, label, a, s),
                        arm=arm,
                    )
        for name, config in self.config.hybrids.items():
            trained = [part for part in parts_of(config) if part in self.config.models]
            settings = [name, config.model_dump(mode="json"), *(self._settings(t, Arm(), 0)[1:] for t in trained)]
            for part in parts_of(config):
                if part in self.config.baselines:
                    baseline = self.config.baselines[part]
                    settings += [baseline.model_dump(mode="json"), *self._versions(baseline.feature_set)]
            for seed in self.config.seeds if trained else (0,):
                arm = BASE if trained else ""
                yield self._kept(name, arm, seed, [*settings, seed], lambda c=config, s=seed: (self._hybrid(c, s), {}))

    def _kept(
        self,
        model: str,
        arm_name: str,
        seed: int,
        settings: list,
        make: Callable[[], tuple[Scorer, Mapping[str, Any]]],
        *,
        arm: Arm | None = None,
    ) -> tuple[Part, bool]:
        """The stored part where it was made of the same, else a new one; and whether it is new."""
        name = ".".join(str(p) for p in (STUDY, model, arm_name, seed) if p != "")
        key = digest([settings, self.data.lineage])
        part = stored(self.root, name, key)
        is_new = part is None
        if part is None:
            started = time.time()
            scorer, meta = make()
            asked = self._data(arm or Arm(), seed).queries["test"]
            ranked = rank(scorer, asked)
            meta = {"model": model, "arm": arm_name, "seed": seed, **meta, "seconds": round(time.time() - started, 1)}
            part = keep(self.root, name, key, {"ranks": _frame(asked.users, ranked)}, meta)
        frame = files.read_table(part, "ranks.parquet")
        return Part(model, arm_name, seed, frame["rank"].to_numpy(), frame["top"].to_numpy(), part.meta), is_new

    def _trained(self, name: str, label: str, arm: Arm, seed: int) -> tuple[Scorer, Mapping[str, Any]]:
        data, plugin = self._data(arm, seed), self.config.models[name]
        text = self._text(arm, plugin.options.width, seed)  # type: ignore[attr-defined]
        with progress(f"{name} {label} seed {seed}") as on_progress:
            run: Run = fit(
                data,
                kind=plugin.kind,
                options=plugin.options,  # type: ignore[arg-type]
                config=self.config.train.model_copy(update={"seed": seed}),
                text=text,
                progress=lambda p: on_progress((p.epoch - 1) * p.batches + p.batch, p.epochs * p.batches),
            )
        version = runs.save_run(self.root, run_name(name, label, seed), run)
        said = {key: value for key, value in run.metrics.items() if key != "epochs"}
        return ModelScorer(run.model, data.n_items, text and text.items), {**said, "run_version": version.number}

    def _text(self, arm: Arm, width: int, seed: int) -> Text | None:
        """The text of an arm. Another seed permutes and draws the controls anew."""
        if arm.item_init is None:
            return None
        stored = self._vectors[arm.item_init.feature_set]
        if arm.vectors == "permuted":
            stored = controls.permuted(stored, seed=seed)
        elif arm.vectors == "random":
            stored = controls.random_like(stored, seed=seed)
        encoder = self.features[arm.item_init.feature_set].encoder
        return fit_text(stored, arm.item_init, self.data, width=width, catalogue=self.dataset.items, encoder=encoder)

    def _data(self, arm: Arm, seed: int) -> Sequences:
        return controls.shuffled(self.data, seed=seed) if arm.histories == "shuffled" else self.data

    def _baseline(self, name: str) -> Scorer:
        section = self.config.baselines[name]
        text: ItemText | None = self._vectors[section.feature_set] if section.feature_set else None
        return load(ctr_models.sequential.baselines, section.kind).Model(section.options, self.data, text)

    def _hybrid(self, config: Any, seed: int) -> Scorer:
        made: dict[str, Scorer] = {}
        for name in parts_of(config):
            if name in self.config.baselines:
                made[name] = self._baseline(name)
            else:
                run = runs.load_run(self.root, run_name(name, BASE, seed))
                made[name] = ModelScorer(run.model, self.data.n_items)
        return hybrid(config, made, self.data)

    def _settings(self, name: str, arm: Arm, seed: int) -> list:
        """Everything that can change a trained part."""
        of_text = self._versions(arm.item_init.feature_set if arm.item_init else None)
        train = self.config.train.model_copy(update={"seed": seed, "threads": None})
        dumps = [part.model_dump(mode="json") for part in (self.config.models[name], arm, train)]
        return [seed, *dumps, *of_text]

    def _versions(self, feature_set: str | None) -> list[str]:
        return [self.features[feature_set].manifest["content_hash"]] if feature_set else []


def run_name(model: str, arm: str, seed: int) -> str:
    """Name of a part's saved run."""
    return f"{model}.{arm}.{seed}"


def sequential(config: RunConfig) -> dict[str, Any]:
    """Run the study of a configuration, from where it was left."""
    return Study(config).run()


def _frame(users: pl.Series, ranked: Ranked) -> pl.DataFrame:
    top = pl.Series("top", ranked.top, dtype=pl.Array(pl.Int32, ranked.top.shape[1]))
    return pl.DataFrame({"user_id": users, "rank": ranked.ranks}).with_columns(top)
