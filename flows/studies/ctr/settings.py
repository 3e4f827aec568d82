"""With which values is a model fitted? Those of the run, with what an arm and a trial change of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ctr_models.train import TrainConfig
from ctr_models.zoo import NetworkConfig
from flows.studies.ctr.config import CONFIGURED, CTRStudyConfig, Trial
from storage.errors import ConfigError

if TYPE_CHECKING:
    from flows.config import RunConfig


@dataclass(frozen=True)
class Settings:
    """Everything a fit is told, beside its rows: options of the network, and the training with adaptor and seed."""

    trial: str
    kind: str
    options: NetworkConfig
    train: TrainConfig

    def said(self) -> list[Any]:
        """What of it can change the result."""
        return [self.kind, self.options.model_dump(mode="json"), self.train.model_dump(mode="json")]


def model_names(run: "RunConfig", study: CTRStudyConfig) -> tuple[str, ...]:
    """The models that are compared."""
    return study.models or tuple(run.models)


def settings(
    run: "RunConfig", study: CTRStudyConfig, model: str, arm: str, *, fraction: float, seed: int
) -> list[Settings]:
    """The values of every trial of a fraction, as configured first; threads are left to the process that fits.

    Raises ConfigError naming what does not fit.
    """
    chosen, section = study.all_arms()[arm], run.models[model]
    found = []
    tried = {name: trial for name, trial in study.trials.items() if trial.is_for(fraction)}
    for name, trial in {CONFIGURED: Trial(), **tried}.items():
        where = f"trial {name!r}"
        options = _changed(section.options, trial.options, f"{where} of model {model!r}")
        assert isinstance(options, NetworkConfig)
        text = _changed(chosen.text or run.train.text, trial.text, f"{where} in arm {arm!r}, text")
        samples = _changed(run.train.samples, chosen.samples, f"arm {arm!r}, samples")
        train = _changed(run.train, trial.train, f"{where}, train")
        train = train.model_copy(update={"text": text, "samples": samples, "seed": seed, "threads": None})
        assert isinstance(train, TrainConfig)
        found.append(Settings(name, section.kind, options, train))
    return found


def check(run: "RunConfig", study: CTRStudyConfig) -> None:
    """Raise ValueError where the study names what the run does not have, or values that do not fit."""
    for what, named, there in (
        ("model", set(study.models), run.models),
        ("feature set", study.feature_sets(), run.features),
    ):
        if wrong := named - set(there):
            raise ValueError(f"reads {what} {min(wrong)!r}, but [{what.split()[0]}s] has: {', '.join(there) or 'none'}")
    try:
        for model in model_names(run, study):
            for arm in study.all_arms():
                for fraction in study.fractions:
                    settings(run, study, model, arm, fraction=fraction, seed=0)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _changed(config: BaseModel, changes: Mapping[str, Any], where: str) -> BaseModel:
    """The same section with some values changed, checked as if it had been written so."""
    if unknown := [key for key in changes if key not in type(config).model_fields]:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(type(config).model_fields)}")
    if not changes:
        return config
    values = {key: getattr(config, key) for key in type(config).model_fields}
    try:
        return type(config)(**{**values, **changes})
    except ValidationError as error:
        said = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(said)}") from error
