"""What does the study of request times measure? The section [latency] of a run's TOML file; every key has a default."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from flows.sections import Section

Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class LatencyConfig(Section):
    """Which requests are timed, and how often."""

    models: tuple[str, ...] = ()
    """Of [models]; by default the one that recommends."""
    candidates: Counts = (1, 10, 100, 1000)
    """Items that a request ranks; more than the catalogue holds means all of it."""
    requests: PositiveInt = 200
    """Warm requests of each arm at each number of candidates."""
    cold_starts: PositiveInt = 3
    """Fresh processes of each arm at each number of candidates."""
    engine: str | None = None
    """The table of [engines] that is asked directly; by default the first that is a language model."""
    llm_candidates: Counts = (1, 10)
    """Those of `candidates` that the language model is asked about: one prompt a candidate."""
    llm_requests: PositiveInt = 20
    """Warm requests of the language model, at most as many as `requests`."""
    llm_cold_starts: PositiveInt = 1
    seed: NonNegativeInt = 0
    """Of the order of users, their candidates, and the arms' turns."""
