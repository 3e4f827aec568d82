"""How is each recommender of a study made, and how is that said? From its configuration, in an arm, with a seed."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import ctr_models.sequential.baselines
from ctr_models.sequential import controls, runs
from ctr_models.sequential.hybrids import hybrid, parts_of
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import Scorer
from ctr_models.sequential.sequences import Sequences, sequences
from ctr_models.sequential.text import Text, fit_text, item_vectors, reduced
from ctr_models.sequential.train import Run, fit
from ctr_models.sequential.zoo import NetworkConfig
from flows.config import RunConfig
from flows.progress import in_batches, progress
from flows.studies.sequential.config import BASE, Arm, SequentialConfig
from storage import files
from storage.errors import ConfigError
from storage.features import FeatureSet, load_features
from storage.ingest import load_dataset
from storage.interactions import Dataset
from storage.plugins import load


class Recommenders:
    """What a study compares, over the newest dataset and feature sets of a data root."""

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

    def made_from(self, feature_set: str | None) -> list[str]:
        """The content hash of a feature set, if it is one."""
        return [self.features[feature_set].manifest["content_hash"]] if feature_set else []

    def data_of(self, arm: Arm, seed: int) -> Sequences:
        """The data as an arm sees them."""
        return controls.shuffled(self.data, seed=seed) if arm.histories == "shuffled" else self.data

    def baseline(self, name: str) -> Scorer:
        """A recommender that is not trained."""
        section = self.config.baselines[name]
        text = self._vectors[section.feature_set] if section.feature_set else None
        return load(ctr_models.sequential.baselines, section.kind).Model(section.options, self.data, text)

    def fitted(self, name: str, arm: Arm, seed: int, options: NetworkConfig, *, label: str) -> Run:
        """Train a model in an arm."""
        with progress(label) as on_progress:
            return fit(
                self.data_of(arm, seed),
                kind=self.config.models[name].kind,
                options=options,
                config=self.config.train.model_copy(update={"seed": seed}),
                text=self._text(arm, options.width, seed),
                progress=in_batches(on_progress),
            )

    def kept(self, run: Run, name: str, arm: str, seed: int | str) -> int:
        """Save a run, or find it saved; its version."""
        return runs.save_run(self.root, run_name(name, arm, seed), run).number

    def scorer(self, run: Run, arm: Arm, seed: int) -> Scorer:
        """What ranks by a model that was trained in an arm with a seed; cold items by the reduction it learned with."""
        vectors = self._vectors_of(arm, seed)
        cold = reduced(vectors, run.reduction) if vectors is not None and run.reduction is not None else None
        return ModelScorer(run.model, self.data.n_items, cold)

    def hybrid(self, config: Any, seed: int) -> Scorer:
        """A hybrid of baselines, and of the saved runs of models in the arm without text."""
        made: dict[str, Scorer] = {}
        for name in parts_of(config):
            if name in self.config.baselines:
                made[name] = self.baseline(name)
            else:
                run = runs.load_run(self.root, run_name(name, BASE, seed))
                made[name] = self.scorer(run, Arm(), seed)
        return hybrid(config, made, self.data)

    def described(self, parts: int) -> dict[str, Any]:
        """How the page is headed, and how it was made: the same for the same parts. `warnings` must be read first."""
        config, data = self.config, self.data
        seeds, n_queries = ", ".join(map(str, config.seeds)), len(data.queries["test"].users)
        train = config.train.model_dump(mode="json", exclude={"seed", "threads"})
        tuning = "untuned: every model has the options as configured, in every arm"
        if config.tuning is not None:
            tuning = f"{config.tuning.trials} trials for each model and arm, the best chosen by validation queries"
        sets = [f"{name} v{each.version}, {each.encoder}" for name, each in self.features.items()]
        return {
            "title": f"Sequential models on {self.dataset.name}",
            "lead": f"What does stored text add? {len(config.models)} models, {1 + len(config.arms)} arms, seeds"
            f" {seeds};"
            f" {n_queries:,} test queries over {data.n_items:,} items, ranked in full.",
            "warnings": [tuning] if config.models and config.tuning is None else [],
            "Dataset": f"{self.dataset.name}, {str(data.lineage['dataset'])[:12]}",
            "Split": json.dumps(config.split.model_dump(mode="json")),
            "Feature sets": "; ".join(sets) or "none",
            "Seeds": seeds,
            "Tuning": tuning,
            "Training, the same for every model and arm": json.dumps(train),
            "Intervals": f"{config.resamples:,} resamples of users and seeds, in pairs",
            "Cold items": f"at most {config.cold_at_most} training rows",
            "Parts": f"{parts}, each ranked once on the test queries by the epoch that validation chose",
            "nightshift": importlib.metadata.version("nightshift"),
        }

    def _text(self, arm: Arm, width: int, seed: int) -> Text | None:
        """The text of an arm, fitted to a model's width."""
        vectors = self._vectors_of(arm, seed)
        if arm.item_init is None or vectors is None:
            return None
        encoder = self.features[arm.item_init.feature_set].encoder
        return fit_text(vectors, arm.item_init, self.data, width=width, catalogue=self.dataset.items, encoder=encoder)

    def _vectors_of(self, arm: Arm, seed: int) -> ItemText | None:
        """The stored vectors as an arm has them. Another seed permutes and draws the controls anew."""
        if arm.item_init is None:
            return None
        stored = self._vectors[arm.item_init.feature_set]
        if arm.vectors == "permuted":
            return controls.permuted(stored, seed=seed)
        if arm.vectors == "random":
            return controls.random_like(stored, seed=seed)
        return stored


def run_name(model: str, arm: str, seed: int | str) -> str:
    """Name of the saved run of a part, or of a trial: `trial-<number>` in place of a seed."""
    return f"{model}.{arm}.{seed}"
