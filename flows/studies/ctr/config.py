"""What does a study of CTR models compare? The sections [sample_efficiency] and [ablation] of a run's TOML file."""

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from ctr_models.adaptors import ChosenAdaptor
from flows.sections import Section

BASE = "base"
"""The arm without text, which is always there."""
CONFIGURED = "configured"
"""The trial that changes nothing, which is always there."""

Fraction = Annotated[float, Field(gt=0, le=1)]


class Arm(Section):
    """What is done to every model; arms differ in nothing else."""

    features: tuple[str, ...] = ()
    """Which feature sets are read."""
    vectors: Literal["stored", "permuted", "random"] = "stored"
    """The controls of text: vectors given to strangers, or Gaussian vectors of the same mean and covariance."""
    text: ChosenAdaptor | None = None
    """How text enters, instead of [train.text]."""
    samples: dict[str, Any] = Field(default={})
    """What differs from [train.samples], such as drop_fields."""

    @model_validator(mode="after")
    def _controls_have_something_to_control(self) -> "Arm":
        if not self.features and self.vectors != "stored":
            raise ValueError(f"vectors = {self.vectors!r} needs features")
        return self

    @property
    def has_text(self) -> bool:
        """Whether it reads text as it is stored."""
        return bool(self.features) and self.vectors == "stored"

    def controls(self, other: "Arm") -> bool:
        """Whether it is the other arm with its text's meaning taken away."""
        return other.has_text and self.vectors != "stored" and self.model_copy(update={"vectors": "stored"}) == other


class Trial(Section):
    """Values that may suit a model better than those it is configured with."""

    options: dict[str, Any] = Field(default={})
    """Of the model: what differs from [models.<name>], such as learning_rate or embedding_l2."""
    text: dict[str, Any] = Field(default={})
    """Of the adaptor: what differs from the arm's, such as l2."""
    train: dict[str, Any] = Field(default={})
    """Of the training: what differs from [train], such as batch_size."""
    fractions: tuple[Fraction, ...] = ()
    """At which fractions it is tried; at all of them if empty."""

    def is_for(self, fraction: float) -> bool:
        """Whether it is tried at a fraction."""
        return not self.fractions or fraction in self.fractions

    @model_validator(mode="after")
    def _leaves_the_rest_alone(self) -> "Trial":
        for key in self.train:
            if key in ("samples", "text", "seed", "threads"):
                raise ValueError(f"train.{key} is no value to try; seeds are the study's, text and samples the arms'")
        return self


class CTRStudyConfig(Section):
    """Models x arms x fractions of the training rows x seeds, with the same training and the same budget for all."""

    models: tuple[str, ...] = ()
    """Which of [models]; all of them if empty."""
    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    """Shares of the training rows; a smaller one is part of every larger one."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    """Each draws its own rows, starting weights and controls."""
    arms: dict[str, Arm] = Field(default={})
    """Beside the arm "base", which has no text."""
    trials: dict[str, Trial] = Field(default={})
    """Tried, beside the values as configured, by every model in every arm at their fractions, with the first seed; the
    best validation AUC decides. None: the study is untuned, and says so."""
    margin: PositiveFloat = 0.001
    """How much AUC counts as nothing; chosen before the study is run."""
    cold_at_most: NonNegativeInt = 10
    """An item with at most so many training rows is cold."""
    resamples: Annotated[int, Field(ge=100)] = 200
    """Resamples of users and seeds for the 95 % intervals."""

    @model_validator(mode="after")
    def _names_fit(self) -> "CTRStudyConfig":
        if BASE in self.arms:
            raise ValueError(f"the arm {BASE!r} is always there and has no text; call yours otherwise")
        if CONFIGURED in self.trials:
            raise ValueError(f"the trial {CONFIGURED!r} is always there and changes nothing; call yours otherwise")
        for name, trial in self.trials.items():
            if unknown := set(trial.fractions) - set(self.fractions):
                raise ValueError(f"trial {name!r} is for the fraction {min(unknown)}, which is not studied")
        for what, values in (("models", self.models), ("fractions", self.fractions), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what} holds a value twice")
        return self

    def all_arms(self) -> dict[str, Arm]:
        """Every arm by name, base first."""
        return {BASE: Arm(), **self.arms}

    def feature_sets(self) -> set[str]:
        """Names of the feature sets that are read."""
        return {name for arm in self.arms.values() for name in arm.features}

    def controls_of(self, name: str) -> list[str]:
        """The arms that are the text arm `name` with its meaning taken away."""
        return [other for other, arm in self.arms.items() if arm.controls(self.arms[name])]

    def is_controlled(self, name: str) -> bool:
        """Whether the arm has no text, or stands beside both its permuted and its random control."""
        arm = self.all_arms()[name]
        return not arm.has_text or {self.arms[other].vectors for other in self.controls_of(name)} == {
            "permuted",
            "random",
        }

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(arm, against) of the claims "arm beats arm": of two texts the one named first, and texts over controls."""
        texts = [name for name, arm in self.arms.items() if arm.has_text]
        yield from combinations(texts, 2)
        yield from ((name, control) for name in texts for control in self.controls_of(name))


class SampleEfficiencyConfig(CTRStudyConfig):
    """How many labelled rows does text save? The whole curve, and the fraction that equals all rows without text."""

    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


class AblationConfig(CTRStudyConfig):
    """Which text, which encoding, which adaptor? Many arms at one fraction or few, each against each other."""

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Also the base against what else has no text."""
        yield from ((BASE, name) for name, arm in self.arms.items() if not arm.features)
        yield from super().pairs()
