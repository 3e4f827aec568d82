"""What must an engine do? It answers requests. One file here is one engine, and the configuration says the file's name.

Each module exports `Config`, a pydantic model (extra="forbid", frozen=True) that is the constructor's only argument,
and `Engine`, a class that derives from `engines.Engine`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from llm_features.facts import Facts
from llm_features.tokens import ChatTokens, Messages
from storage.errors import GenerationError

__all__ = ["ChatTokens", "Completion", "Engine", "EngineDied", "FinishReason", "Messages", "Request"]

FinishReason = Literal["stop", "length", "error", "set_aside"]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to answer.

    key: its text_key, the hash of everything that can change the answer. entity_id: the first entity that needs it.
    max_tokens: of the answer. facts: what the messages were made from, only for engines that read facts. token_ids:
    the prompt in the model's tokens, where someone has encoded it already.
    """

    key: str
    entity_id: str
    messages: Messages
    max_tokens: int
    facts: Facts | None = None
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request. Token numbers are 0 where the engine counts none.

    finish_reason: stop | length (cut off at max_tokens) | error (this prompt failed, the text may say why) |
    set_aside (it killed the engine).
    """

    key: str
    text: str
    finish_reason: FinishReason
    n_prompt_tokens: int = 0
    n_output_tokens: int = 0


class EngineDied(GenerationError):
    """The engine is gone. `unfinished` are the keys it had been given and has not answered."""

    def __init__(self, message: str, unfinished: Iterable[str]) -> None:
        super().__init__(message)
        self.unfinished = tuple(unfinished)


class Engine(Protocol):
    """Answers requests. What is expensive to open is opened by the first `generate`, not by the constructor."""

    reads_facts: ClassVar[bool] = False
    """The text is made from `Request.facts` and not from the messages alone, so the facts are part of the key."""
    is_model: ClassVar[bool] = True
    """A language model answers, so tokens take time and money."""
    is_judged: ClassVar[bool] = True
    """The prompt's gate judges the answers; it has nothing to say of text that a rule makes."""

    @property
    def identity(self) -> Mapping[str, object]:
        """Everything of the engine that can change a text, and nothing else: model id, revision, chat template,
        decoding parameters. JSON values."""
        ...

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer together that the model can hold; None where there is no such bound."""
        return None

    def salt(self, entity_id: str) -> str:
        """What else decides the text of this one entity: "" but where texts are given."""
        return ""

    def tokens(self) -> ChatTokens | None:
        """Counts and encodes with the model's own tokenizer; None where there is none: budgets are then estimated."""
        return None

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer every request once, in any order, as they finish, at most `in_flight` of them at a time.

        Raises EngineDied naming the unfinished keys, GenerationError where the engine cannot start.
        """
        ...

    def close(self) -> None:
        """Give back whatever the engine holds. May be called twice."""
