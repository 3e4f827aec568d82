"""What if the prompt is the text already? Writes the last message word for word: a plain title, a title and attributes.

With the prompts `item_title` and `item_attributes` it is the control 'is it the LLM, or any text about the item?'.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from llm_features import engines
from llm_features.engines import Completion, Request


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the engine: none."""


class Engine(engines.Engine):
    """Answers each request with its last message."""

    is_model = False
    is_judged = False

    def __init__(self, config: Config) -> None:
        pass

    @property
    def identity(self) -> Mapping[str, object]:
        """Nothing but the name: the messages are the text."""
        return {"engine": "prompt"}

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer each request in order."""
        for request in requests:
            yield Completion(request.key, request.messages[-1]["content"], "stop")
