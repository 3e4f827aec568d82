"""What would a rule write from the same facts? Deterministic text: the control that shows what an LLM adds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel

from llm_features import engines
from llm_features.engines import Completion, Request
from llm_features.facts import Attributes, ItemFacts, UserFacts, attribute_lines, said
from storage.errors import GenerationError

VERSION = 1
"""Part of every key: raise it when the same facts give another text."""

TOP = 4
"""Values of an attribute, and titles, that a user's text names at most."""


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the engine."""

    liked_above: float = 3.0
    """A rating above it is a like, any other a dislike; without ratings everything in the history is a like."""


class Engine(engines.Engine):
    """Writes the attributes of an item, and counts and shares of a user's likes and dislikes, as sentences."""

    reads_facts = True
    is_model = False
    is_judged = False

    def __init__(self, config: Config) -> None:
        self._liked_above = config.liked_above

    @property
    def identity(self) -> Mapping[str, object]:
        """The wording's version and what counts as a like."""
        return {"engine": "template", "version": VERSION, "liked_above": self._liked_above}

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer each request in order."""
        for request in requests:
            if isinstance(request.facts, ItemFacts):
                text = _item(request.facts)
            elif isinstance(request.facts, UserFacts):
                text = _user(request.facts, self._liked_above)
            else:
                raise GenerationError(f"the template engine was given no facts of {request.entity_id!r}")
            yield Completion(request.key, text, "stop")


def _item(facts: ItemFacts) -> str:
    return " ".join([f"{facts.title} is a {facts.domain.singular}.", *_sentences(facts.attributes)])


def _user(facts: UserFacts, liked_above: float) -> str:
    words = facts.domain
    liked = [item for item, rating in facts.history if rating is None or rating > liked_above]
    disliked = [item for item, rating in facts.history if rating is not None and rating <= liked_above]
    ratings = [rating for _, rating in facts.history if rating is not None]
    parts = [f"This person {words.verb} {len(facts.history)} {words.plural} of late."]
    if ratings:
        mean = sum(ratings) / len(ratings)
        parts.append(f"{len(liked)} were liked and {len(disliked)} were not; the mean rating is {mean:.1f}.")
    for what, items in (("Liked", liked), ("Not liked", disliked)):
        if items:
            parts += [f"{what}: {shares}." for shares in _shares(items)]
            latest = "; ".join(item.title for item in items[: -TOP - 1 : -1] if item.title)
            parts += [f"{what} most recently: {latest}."] if latest else []
    return " ".join([*parts, *_sentences(facts.attributes)])


def _shares(items: Sequence[ItemFacts]) -> Iterable[str]:
    """For each attribute the values that several of `items` share, most frequent first; for numbers the mean."""
    for name in dict.fromkeys(name for item in items for name in item.attributes):
        values = [item.attributes[name] for item in items if name in item.attributes]
        label = name.replace("_", " ")
        numbers = [value for value in values if isinstance(value, int | float)]
        if numbers:
            yield f"{label} on average {sum(numbers) / len(numbers):.4g}"
            continue
        counts = Counter(word for value in values for word in (value if isinstance(value, tuple) else (said(value),)))
        top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP]
        shared = [f"{word} ({100 * n / len(items):.0f} %)" for word, n in top if n > 1 or len(items) == 1]
        if shared:
            yield f"{label} {', '.join(shared)}"


def _sentences(attributes: Attributes) -> list[str]:
    lines = attribute_lines(attributes)
    return [f"{line[:1].upper()}{line[1:]}." for line in lines]
