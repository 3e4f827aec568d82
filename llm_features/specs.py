"""Which TOML files does a folder hold, and what does the one called `name` say?"""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from storage.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def names(folder: Path) -> list[str]:
    """Names of the TOML files in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read(folder: Path, name: str, model: type[Model]) -> Model:
    """The file `<name>.toml` of `folder` as a `model`, whose field `name` is the file's name.

    Raises ConfigError naming the file and what is wrong with it, or what there is.
    """
    if name not in names(folder):
        raise ConfigError(f"no {name!r} in {folder.name}; there are: {', '.join(names(folder))}")
    path = folder / f"{name}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return model(name=name, **raw)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    except TypeError:
        raise ConfigError(f"{path} says 'name', which is the file's name already") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or name}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path} is not valid:\n" + "\n".join(lines)) from error
