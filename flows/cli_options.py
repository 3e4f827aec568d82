"""Which options do all commands share? The run's TOML file and the values that override it."""

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", envvar="NIGHTSHIFT_CONFIG", help="The run's TOML file.", show_envvar=True)
]
Overrides = Annotated[
    list[str], typer.Option("--set", help="Override one value: --set section.key=value. May be repeated.")
]
DEFAULT_CONFIG = Path("nightshift.toml")


def load(config: Path, overrides: list[str]) -> Any:
    """The run, checked whole. Raises ConfigError."""
    from flows.config import load_config

    return load_config(config, overrides)
