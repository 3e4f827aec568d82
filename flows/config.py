"""What should one run do? One TOML file, checked whole before anything starts.

Every section is a pydantic model that refuses unknown keys. A section that names a plug-in (`source` of a dataset,
`kind` of an engine or encoder) hands its other keys to that plug-in's own `Config`. Relative paths are relative to
the folder the command runs in.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

import ctr_models.zoo
import llm_features.encoders
import llm_features.engines
import storage.datasets
from ctr_models.train import TrainConfig
from flows import protocols
from flows.digests import digest
from flows.run_sections import (
    SIMILARITY,
    SPLITS,
    CompareConfig,
    DatasetConfig,
    FeatureConfig,
    GenerateConfig,
    LabelConfig,
    RecommendConfig,
    Retriever,
    ScheduleConfig,
    StoreConfig,
)
from flows.sections import Plugin, Section, plugin
from flows.studies.ctr.config import AblationConfig, SampleEfficiencyConfig
from flows.studies.ctr.settings import check
from flows.studies.latency.config import LatencyConfig
from flows.studies.sequential.config import SequentialConfig
from storage.errors import ConfigError
from storage.files import named


class RunConfig(Section):
    """One run, whole. `config_hash` names it."""

    store: StoreConfig
    protocol: str | None = None
    """A file of flows/protocols: which rows are labels, how they are split, and how many there must be."""
    dataset: Annotated[DatasetConfig, plugin(storage.datasets, "source", frozenset({"max_bad_share"}))]
    engines: dict[str, Annotated[Plugin, plugin(llm_features.engines, "kind")]] = Field(default={})
    features: dict[str, FeatureConfig] = Field(default={})
    generate: GenerateConfig = GenerateConfig()
    encoder: Annotated[Plugin, plugin(llm_features.encoders, "kind")]
    encoders: dict[str, Annotated[Plugin, plugin(llm_features.encoders, "kind")]] = Field(default={})
    """Further encoders, for feature sets that name one."""
    labels: LabelConfig = LabelConfig()
    split: SPLITS
    train: TrainConfig = TrainConfig()
    models: dict[str, Annotated[Plugin, plugin(ctr_models.zoo, "kind")]] = Field(default={})
    """Which models are trained, each with and without the features."""
    retrievers: dict[str, Retriever] = Field(default={})
    """Which sequential models are trained beside them, on the same split, to find candidates."""
    compare: CompareConfig = CompareConfig()
    recommend: RecommendConfig = RecommendConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    sequential: SequentialConfig | None = None
    """What `nightshift study sequential` compares."""
    sample_efficiency: SampleEfficiencyConfig | None = None
    """What `nightshift study sample_efficiency` compares."""
    ablation: AblationConfig | None = None
    """What `nightshift study ablation` compares."""
    latency: LatencyConfig = LatencyConfig()
    """What `nightshift study latency` times."""

    @model_validator(mode="before")
    @classmethod
    def _protocol_decides(cls, raw: Any) -> Any:
        name = raw.get("protocol")
        if name is None:
            return raw
        if said := [section for section in ("labels", "split") if section in raw]:
            raise ValueError(f"protocol {name!r} says which labels and which split: leave out [{'] and ['.join(said)}]")
        try:
            chosen = protocols.load(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return {**raw, "labels": chosen.labels, "split": chosen.split}

    @model_validator(mode="after")
    def _names_exist(self) -> "RunConfig":
        of_ctr = {"sample_efficiency": self.sample_efficiency, "ablation": self.ablation}
        try:
            for name in self._names():
                named(Path(), name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        for said, name, section in self._references():
            if name not in (there := getattr(self, section)):
                raise ValueError(f"{said} {name!r}, but [{section}] has: {', '.join(there) or 'none'}")
        for name, study in of_ctr.items():
            try:
                if study is not None:
                    check(self, study)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
        if SIMILARITY in self.retrievers:
            raise ValueError(f"the retrieval {SIMILARITY!r} is always there; call your retriever otherwise")
        if self.recommend.retrieval not in (SIMILARITY, *self.retrievers):
            there = ", ".join((SIMILARITY, *self.retrievers))
            raise ValueError(f"recommend.retrieval is {self.recommend.retrieval!r}; there are: {there}")
        return self

    def _names(self) -> Iterator[str]:
        """Every name that becomes a folder."""
        yield from (*self.features, *self.models, *self.retrievers, *self.encoders)
        if (study := self.sequential) is not None:
            yield from (*study.models, *study.arms, *study.baselines, *study.hybrids)
        for section in (self.sample_efficiency, self.ablation):
            yield from section.arms if section is not None else ()

    def _references(self) -> Iterator[tuple[str, str, str]]:
        """(who says it, the name, the section that must have it) of every name that one section says of another."""
        for name, feature in self.features.items():
            yield f"features.{name}.engine is", feature.engine, "engines"
            if feature.encoder is not None:
                yield f"features.{name}.encoder is", feature.encoder, "encoders"
        for name in sorted(self.sequential.feature_sets()) if self.sequential is not None else ():
            yield "sequential reads feature set", name, "features"
        for name, retriever in self.retrievers.items():
            if retriever.item_init is not None:
                yield f"retrievers.{name} reads feature set", retriever.item_init.feature_set, "features"
        for name in self.latency.models:
            yield "latency.models has", name, "models"
        if self.latency.engine is not None:
            yield "latency.engine is", self.latency.engine, "engines"
        if self.models:
            yield "recommend.model is", self.recommend.model, "models"

    def config_hash(self, *sections: str) -> str:
        """Short hash of the named sections: what a cached result depends on."""
        chosen = self.model_dump(mode="json", include=set(sections))
        return digest(chosen)[:16]


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
