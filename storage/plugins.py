"""Which plug-ins are there, and where is the one called `name`? The folder is the registry: a file is a plug-in."""

import importlib
import pkgutil
from types import ModuleType

from storage.errors import ConfigError


def available(package: ModuleType) -> list[str]:
    """Names of the plug-ins in a package's folder, sorted; files that start with an underscore are not plug-ins."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load(package: ModuleType, name: str) -> ModuleType:
    """Import plug-in `name`. Raises ConfigError listing what there is."""
    if name not in available(package):
        raise ConfigError(f"no {name!r} in {package.__name__}; there are: {', '.join(available(package))}")
    return importlib.import_module(f"{package.__name__}.{name}")
