"""What do all commands share? The run's TOML file, the values that override it, and how a command writes."""

from collections.abc import Callable
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


def written(run: Any, purpose: str, work: Callable[[], Any]) -> Any:
    """Do `work` as the only writer, then rebuild the catalog; what `work` says."""
    from flows import steps
    from storage.lock import WriterLock

    with WriterLock(run.store.root, purpose=purpose):
        done = work()
        steps.publish_catalog(run)
    return done


def load(config: Path, overrides: list[str]) -> Any:
    """The run, checked whole. Raises ConfigError."""
    from flows.config import load_config

    return load_config(config, overrides)
