"""Which prompts are there? One TOML file is one prompt; what it may say is `llm_features.prompts.PromptSpec`."""

from pathlib import Path

from llm_features import specs
from llm_features.prompts import PromptSpec

FOLDER = Path(__file__).parent


def available() -> list[str]:
    """Names of the prompts."""
    return specs.names(FOLDER)


def load(name: str) -> PromptSpec:
    """The prompt called `name`. Raises ConfigError listing what there is, or saying what is wrong with the file."""
    return specs.read(FOLDER, name, PromptSpec)
