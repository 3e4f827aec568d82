"""What does a study of sequential models compare? The section [sequential] of a run's TOML file."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

import ctr_models.sequential.baselines
import ctr_models.sequential.zoo
from ctr_models.sequential.hybrids import HybridConfig, parts_of
from ctr_models.sequential.reduction import ItemInit
from ctr_models.sequential.sampled import Sampled
from ctr_models.sequential.train import TrainConfig
from flows.sections import Plugin, Section, plugin
from flows.studies.tuning import Range, TuningConfig
from storage.plugins import load
from storage.split import Split

BASE = "base"
"""The arm without text, which is always there."""


class Arm(Section):
    """What is done to every model; arms differ in nothing else."""

    item_init: ItemInit | None = None
    """How text enters; not at all if None."""
    vectors: Literal["stored", "permuted", "random"] = "stored"
    """The controls of text: vectors given to strangers, or Gaussian vectors of the same mean and covariance."""
    histories: Literal["ordered", "shuffled"] = "ordered"
    """The control of order."""

    @model_validator(mode="after")
    def _controls_have_something_to_control(self) -> "Arm":
        if self.item_init is None and self.vectors != "stored":
            raise ValueError(f"vectors = {self.vectors!r} needs an item_init")
        return self


class Baseline(Plugin):
    """A recommender that is not trained: `kind` is a file of ctr_models/sequential/baselines."""

    feature_set: str | None = None
    """Whose vectors it reads, where it needs text."""


Model = Annotated[Plugin, plugin(ctr_models.sequential.zoo, "kind")]
BaselineTable = Annotated[Baseline, plugin(ctr_models.sequential.baselines, "kind", frozenset({"feature_set"}))]


class SequentialConfig(Section):
    """Models x arms x seeds under one protocol, with the same training for all."""

    split: Annotated[Split, Field(discriminator="kind")]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    train: TrainConfig = TrainConfig()
    models: dict[str, Model] = Field(default={})
    arms: dict[str, Arm] = Field(default={})
    """Beside the arm "base", which has no text."""
    baselines: dict[str, BaselineTable] = Field(default={})
    hybrids: dict[str, HybridConfig] = Field(default={})
    """Of baselines, and of models in the arm "base"."""
    tuning: TuningConfig | None = None
    """How options are chosen; without it they are as configured, and the study says so."""
    sampled: tuple[Sampled, ...] = ()
    """Metrics over sampled candidates, beside full ranking and named so."""
    claim_metric: Literal["ndcg@10", "ndcg@20", "hr@10", "hr@20", "mrr@10", "mrr@20"] = "ndcg@20"
    """What the lines of the study speak of."""
    cold_at_most: NonNegativeInt = 5
    """An item with at most so many training rows is cold."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of users and seeds for the 95 % intervals."""

    @model_validator(mode="after")
    def _names_fit(self) -> "SequentialConfig":
        if BASE in self.arms:
            raise ValueError(f"the arm {BASE!r} is always there and has no text; call yours otherwise")
        names = [*self.models, *self.baselines]
        for name, hybrid in self.hybrids.items():
            if missing := [part for part in parts_of(hybrid) if part not in names]:
                raise ValueError(f"hybrid {name!r} is made of {missing[0]!r}; there are: {', '.join(names) or 'none'}")
        both = [*names, *self.hybrids]
        if repeated := sorted({name for name in both if both.count(name) > 1}):
            raise ValueError(f"{repeated[0]!r} is the name of two recommenders")
        for name, baseline in self.baselines.items():
            needs = load(ctr_models.sequential.baselines, baseline.kind).NEEDS_TEXT
            if needs != (baseline.feature_set is not None):
                raise ValueError(f"baseline {name!r} {'needs a' if needs else 'reads no'} feature_set")
        return self

    @model_validator(mode="after")
    def _tuning_fits(self) -> "SequentialConfig":
        if self.tuning is None:
            return self
        if unknown := sorted(set(self.tuning.models) - set(self.models)):
            raise ValueError(f"tuning.models names {unknown[0]!r}; there are: {', '.join(self.models) or 'none'}")
        for name, model in self.models.items():
            space, there = self.tuning.of(name), type(model.options).model_fields
            if not space:
                raise ValueError(f"tuning has no option to choose for model {name!r}")
            for option, choice in space.items():
                if option not in there:
                    raise ValueError(f"model {name!r} has no option {option!r} to tune; there are: {', '.join(there)}")
                value = getattr(model.options, option)
                if not (choice.holds(value) if isinstance(choice, Range) else value in choice):
                    raise ValueError(
                        f"tuning of {option!r} must hold {value!r}, as model {name!r} is configured: it is tried first"
                    )
        return self

    def feature_sets(self) -> set[str]:
        """Names of the feature sets that are read."""
        of_arms = {arm.item_init.feature_set for arm in self.arms.values() if arm.item_init is not None}
        return of_arms | {baseline.feature_set for baseline in self.baselines.values() if baseline.feature_set}
