"""What should one run do? One TOML file, checked whole before anything starts.

Every section is a pydantic model that refuses unknown keys. A section that names a plug-in (`source` of a dataset,
`kind` of an engine or encoder) hands its other keys to that plug-in's own `Config`. Relative paths are relative to
the folder the command runs in.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, ValidationError, model_validator

import ctr_models.zoo
import llm_features.encoders
import llm_features.engines
import storage.datasets
from ctr_models.train import TrainConfig
from flows.sections import Plugin, Section, plugin
from flows.studies.config import SequentialConfig
from storage import split
from storage.errors import ConfigError
from storage.files import named


class StoreConfig(Section):
    """Where everything of this run lies."""

    root: Path
    """The data root: one folder for one dataset and all that is made from it."""


class DatasetConfig(Plugin):
    """Where the interactions come from: `source` is a file of storage/datasets, the rest are its options."""

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of a file's rows that may go to quarantine before the run stops with nothing published."""


class FeatureConfig(Section):
    """One feature set: a prompt, and who answers it."""

    prompt: str
    """A file of llm_features/prompt_specs."""
    engine: str
    """A table of [engines]."""
    first_checkpoint: Annotated[int, Field(ge=1)] = 5
    """User text is first written after this many interactions (ignored for items)."""
    growth: Annotated[float, Field(gt=1)] = 2.0
    """... and again whenever the history has grown by this factor."""
    max_history: Annotated[int, Field(ge=1)] = 30
    """How many of the newest interactions a prompt shows at most."""
    anonymised: bool = False
    """Prompts show a stable pseudonym in place of each title, so that what a model knows of the world cannot help: what
    a text gains less than the one about titles came from the title. For comparisons, as a feature set of its own."""


class GenerateConfig(Section):
    """How prompts are sent."""

    shard_size: Annotated[int, Field(ge=1)] = 512
    """Prompts that may be sent and not yet saved: what a killed run may have to send again."""
    retry_failed: bool = False
    """Send prompts again that were set aside because they killed the engine."""


class LabelConfig(Section):
    """What is a positive label, and which rows count."""

    rating_above: float = 3.0
    min_history: Annotated[int, Field(ge=0)] = 5
    known_at: bool = False
    """A training row may only use text that existed before the label, by the wall clock too."""


class CompareConfig(Section):
    """How the features are judged: models that differ in nothing else, on the same test rows."""

    arms: tuple[Literal["without", "with", "permuted"], ...] = ("without", "with")
    """"permuted" gives every text's vector to a stranger: a gain that survives it does not come from the text."""
    cold_at_most: Annotated[int, Field(ge=0)] = 10
    """An item with at most so many training rows is cold."""
    resamples: Annotated[int, Field(ge=20)] = 200
    """Resamples of users for the 95 % intervals."""


class RecommendConfig(Section):
    """Recommendations stored each night."""

    model: str = "din"
    """Which of the trained models ranks."""
    k: Annotated[int, Field(ge=1)] = 10
    users: Literal["all", "none"] | int = "all"
    """For whom: everyone, nobody, or the first so many users."""


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone; write one like UTC or Europe/Berlin")
    return name


class ScheduleConfig(Section):
    """When `nightshift serve` runs the night."""

    cron: str = "0 2 * * *"
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """A run's logical date is the day it was scheduled for in this zone."""


SPLITS = Annotated[split.Split, Field(discriminator="kind")]


class RunConfig(Section):
    """One run, whole. `config_hash` names it."""

    store: StoreConfig
    dataset: Annotated[DatasetConfig, plugin(storage.datasets, "source", frozenset({"max_bad_share"}))]
    engines: dict[str, Annotated[Plugin, plugin(llm_features.engines, "kind")]] = Field(default={})
    features: dict[str, FeatureConfig] = Field(default={})
    generate: GenerateConfig = GenerateConfig()
    encoder: Annotated[Plugin, plugin(llm_features.encoders, "kind")]
    labels: LabelConfig = LabelConfig()
    split: SPLITS
    train: TrainConfig = TrainConfig()
    models: dict[str, Annotated[Plugin, plugin(ctr_models.zoo, "kind")]] = Field(default={})
    """Which models are trained, each with and without the features."""
    compare: CompareConfig = CompareConfig()
    recommend: RecommendConfig = RecommendConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    sequential: SequentialConfig | None = None
    """What `nightshift study sequential` compares."""

    @model_validator(mode="after")
    def _names_exist(self) -> "RunConfig":
        study = self.sequential
        studied = (*study.models, *study.arms, *study.baselines, *study.hybrids) if study else ()
        for name in (*self.features, *self.models, *studied):
            try:
                named(Path(), name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        for name, feature in self.features.items():
            if feature.engine not in self.engines:
                there = ", ".join(self.engines) or "none"
                raise ValueError(f"features.{name}.engine is {feature.engine!r}, but [engines] has: {there}")
        if self.sequential is not None and (wrong := self.sequential.feature_sets() - set(self.features)):
            there = ", ".join(self.features) or "none"
            raise ValueError(f"sequential reads feature set {min(wrong)!r}, but [features] has: {there}")
        if self.models and self.recommend.model not in self.models:
            raise ValueError(f"recommend.model is {self.recommend.model!r}, but [models] has: {', '.join(self.models)}")
        return self

    def config_hash(self, *sections: str) -> str:
        """Short hash of the named sections: what a cached result depends on."""
        chosen = self.model_dump(mode="json", include=set(sections))
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run's TOML, with `section.key=value` overrides (values in TOML, bare words are strings).

    Raises ConfigError naming the file, the key and what is allowed.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; `--config` wants the TOML file of a run") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    for override in overrides:
        _override(raw, override)
    for key in _with_nul(raw):
        raise ConfigError(f"{path} holds a NUL character in {key!r}, where no name and no path can have one")
    try:
        return RunConfig(**raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc']) or 'the run'}: {_sentence(e)}" for e in error.errors()]
        raise ConfigError(f"{path} is not a valid run:\n" + "\n".join(lines)) from error


def _override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r} must read section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {override!r}: {part!r} is a value, not a section")
    raw[parts[-1]] = value


def _with_nul(value: Any, key: str = "") -> Iterator[str]:
    """Keys whose value, or whose own name, holds a NUL: the operating system takes none in a path."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from [f"{key}{name}"] if "\0" in name else _with_nul(one, f"{key}{name}.")
    elif isinstance(value, list):
        for one in value:
            yield from _with_nul(one, key)
    elif isinstance(value, str) and "\0" in value:
        yield key.removesuffix(".")


def _sentence(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg']} (got {error['input']!r})"
