"""How is each recommender of a study made? From its configuration, in an arm, with a seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctr_models.sequential.baselines
from ctr_models.sequential import controls, runs
from ctr_models.sequential.hybrids import hybrid, parts_of
from ctr_models.sequential.model import ModelScorer
from ctr_models.sequential.ranking import Scorer
from ctr_models.sequential.sequences import Sequences, sequences
from ctr_models.sequential.text import Text, fit_text, item_vectors
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

    def fitted(self, name: str, arm: Arm, seed: int, options: NetworkConfig, *, label: str) -> tuple[Run, Text | None]:
        """Train a model in an arm; the run, and the text it started from."""
        data, text = self.data_of(arm, seed), self._text(arm, options.width, seed)
        with progress(label) as on_progress:
            run = fit(
                data,
                kind=self.config.models[name].kind,
                options=options,
                config=self.config.train.model_copy(update={"seed": seed}),
                text=text,
                progress=in_batches(on_progress),
            )
        return run, text

    def trained(
        self, name: str, arm_name: str, arm: Arm, seed: int, options: NetworkConfig
    ) -> tuple[Scorer, Mapping[str, Any]]:
        """Train a model in an arm and save its run; what scores, and what is to be remembered of it."""
        run, text = self.fitted(name, arm, seed, options, label=f"{name} {arm_name} seed {seed}")
        version = runs.save_run(self.root, run_name(name, arm_name, seed), run)
        said = {key: value for key, value in run.metrics.items() if key != "epochs"}
        scorer = ModelScorer(run.model, self.data.n_items, text and text.items)
        return scorer, {**said, "run_version": version.number}

    def hybrid(self, config: Any, seed: int) -> Scorer:
        """A hybrid of baselines, and of the saved runs of models in the arm without text."""
        made: dict[str, Scorer] = {}
        for name in parts_of(config):
            if name in self.config.baselines:
                made[name] = self.baseline(name)
            else:
                run = runs.load_run(self.root, run_name(name, BASE, seed))
                made[name] = ModelScorer(run.model, self.data.n_items)
        return hybrid(config, made, self.data)

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


def run_name(model: str, arm: str, seed: int) -> str:
    """Name of a part's saved run."""
    return f"{model}.{arm}.{seed}"
