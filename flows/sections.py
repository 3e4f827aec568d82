"""How is a table of a run's TOML file checked? Unknown keys are refused; a plug-in's options are its own Config."""

from types import ModuleType
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from storage.plugins import load


class Section(BaseModel):
    """A table of the TOML file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, section: Any) -> Any:
        return known(section, cls)


def known(section: Any, model: type[BaseModel]) -> Any:
    """The section as it is. Raises ValueError naming a key that the model does not have."""
    unknown = [key for key in section if key not in model.model_fields] if isinstance(section, dict) else []
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed are {', '.join(model.model_fields)}")
    return section


class Plugin(Section):
    """A section that names a plug-in; `options` is the plug-in's own Config, made from the section's other keys."""

    kind: str
    options: SerializeAsAny[BaseModel]


def plugin(package: ModuleType, key: str, own: frozenset[str] = frozenset()) -> BeforeValidator:
    """Makes a `Plugin` of a table whose `key` names a file of `package`; keys in `own` are the table's own."""

    def build(section: Any) -> Any:
        if not isinstance(section, dict) or key not in section:
            raise ValueError(f"needs the key {key!r}")
        kind = section[key]
        if not isinstance(kind, str):
            raise ValueError(f"{key} must be a word, not {kind!r}")
        module = load(package, kind)
        options = {name: value for name, value in section.items() if name != key and name not in own}
        known(options, module.Config)
        kept = {name: section[name] for name in own if name in section}
        return {"kind": kind, "options": module.Config(**options), **kept}

    return BeforeValidator(build)
