"""What can the sections of a run say? All but those of the studies, which lie with the studies."""

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

import ctr_models.sequential.zoo
from ctr_models.sequential.reduction import ItemInit
from ctr_models.sequential.train import TrainConfig as SequentialTrainConfig
from flows.sections import Plugin, Section, plugin
from storage import split
from storage.snapshot import Rows


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
    encoder: str | None = None
    """A table of [encoders]; by default [encoder]."""
    factors: tuple[str, ...] = ()
    """Which of the domain's factors a model is asked about; all by default. One feature set for each factor gives an
    item or a user a vector for each (factorised knowledge, KAR, arXiv 2306.10933, section 3.1)."""
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
    rows_of_user: Rows = "all"
    """"after_half": only those after the first half, at most 30, of a user's rows; "last": only the last."""
    skip_first: Annotated[int, Field(ge=0)] = 0
    """So many rows of each user, in order, are history only; those of one instant count one by one."""
    between: tuple[int, int] | None = None
    """UTC seconds: only rows from the first moment on and before the second; the others are history."""


class CompareConfig(Section):
    """How the features are judged: models that differ in nothing else, on the same test rows."""

    arms: tuple[Literal["without", "with", "permuted"], ...] = ("without", "with")
    """"permuted" gives every text's vector to a stranger: a gain that survives it does not come from the text."""
    cold_at_most: Annotated[int, Field(ge=0)] = 10
    """An item with at most so many training rows is cold."""
    resamples: Annotated[int, Field(ge=20)] = 200
    """Resamples of users for the 95 % intervals."""
    pairs: Path | None = None
    """A csv file whose first two columns are users and items: test rows of these pairs, and the others, are judged
    apart. A text that saw the future is found out by pairs that it cannot have seen."""


class RetrieverConfig(Plugin):
    """A sequential model that finds candidates: `kind` is a file of ctr_models/sequential/zoo, the rest its options."""

    item_init: ItemInit | None = None
    """How the text of items enters; items that came after training can be found only where it does."""
    train: SequentialTrainConfig = SequentialTrainConfig()


SIMILARITY = "similarity"
"""The retrieval that needs no model of its own: items near to what the user liked."""


class RecommendConfig(Section):
    """Recommendations stored each night."""

    retrieval: str = SIMILARITY
    """Who finds the candidates: "similarity" to the liked items, or one of [retrievers]."""
    model: str = "din"
    """Which of the trained models ranks them."""
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


Retriever = Annotated[RetrieverConfig, plugin(ctr_models.sequential.zoo, "kind", frozenset({"item_init", "train"}))]
SPLITS = Annotated[split.Split, Field(discriminator="kind")]
