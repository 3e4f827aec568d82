"""What is a prompt, and how do facts become messages that fit the model? A prompt is data: see `prompt_specs/*.toml`.

The wording is factorised as in KAR (arXiv 2306.10933, section 3.1): users and items are asked about the same factors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import Template
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveInt, model_validator

from llm_features.domains import Domain
from llm_features.facts import Facts, ItemFacts, attribute_lines
from llm_features.quality import Gate
from llm_features.text import ELLIPSIS, clean
from llm_features.tokens import ChatTokens, Messages
from storage.errors import ConfigError

RENDERING = 1
"""Version of the code here that turns facts into lines. Raise it when the same facts give other messages."""

_DOMAIN = frozenset({"singular", "plural", "verb", "factors"})
_FACTS = {"item": ("title", "attributes"), "user": ("profile", "history")}
_NEEDED = {"item": "title", "user": "history"}


_ROLE = " " * 24
"""Stands for what a chat template writes around a message, where tokens are estimated."""


class PromptSpec(BaseModel, extra="forbid", frozen=True):
    """One prompt. Variables are `$singular $plural $verb $factors` of the domain, and of the entity `$title
    $attributes` (item) or `$profile $history` (user); the entity's stand in the user message, each once."""

    name: str
    version: PositiveInt
    """Part of the key: raise it to have every text written anew."""
    entity: Literal["user", "item"]
    system: str = ""
    user: Annotated[str, Field(min_length=1)]
    max_tokens: PositiveInt
    """Tokens of the answer at most; an answer that needs more is rejected as cut off."""
    budget: PositiveInt
    """Tokens of the whole prompt at most. The newest history is kept."""
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _variables_are_known(self) -> "PromptSpec":
        system, user = _variables(self.system, "system"), _variables(self.user, "user")
        offered = _FACTS[self.entity]
        unknown = sorted({*system, *user} - _DOMAIN - set(offered))
        if unknown:
            there = ", ".join(f"${name}" for name in (*sorted(_DOMAIN), *offered))
            raise ValueError(f"unknown variables: {', '.join('$' + n for n in unknown)}; there are: {there}")
        if _NEEDED[self.entity] not in user:
            raise ValueError(f"the user message lacks ${_NEEDED[self.entity]}, without which it says nothing of anyone")
        for name in offered:
            if name in system or user.count(name) > 1:
                raise ValueError(f"${name} must stand in the user message, and only once")
        return self

    @property
    def identity(self) -> dict[str, object]:
        """What of the prompt can change a text: all but the gate."""
        return {**self.model_dump(mode="json", exclude={"gate"}), "rendering": RENDERING}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Messages of one entity. `n_tokens`: the model's own, or estimated. `shortened`: not all facts had room."""

    messages: Messages
    n_tokens: int
    shortened: bool


def render(spec: PromptSpec, facts: Facts) -> Messages:
    """The messages of one entity within the prompt's budget, in estimated tokens."""
    rendered = Renderer(spec, facts.domain).render([facts])[0]
    if rendered is None:
        raise ConfigError(f"prompt {spec.name!r}: budget {spec.budget} is too small for these facts")
    return rendered.messages


def estimate_tokens(lines: Sequence[str]) -> list[int]:
    """Tokens of each line where no tokenizer is at hand: one for every three bytes of UTF-8, rather too many."""
    return [len(line.encode()) // 3 + 1 for line in lines]


class Renderer:
    """Renders one prompt in one domain. What all its messages share is filled in and counted once, each distinct line
    of facts once.

    `tokens` counts in the model's tokens (None: estimated); `max_model_len` is the model's bound on prompt and answer.
    Raises ConfigError where the instructions alone do not fit.
    """

    def __init__(
        self, spec: PromptSpec, domain: Domain, *, tokens: ChatTokens | None = None, max_model_len: int | None = None
    ) -> None:
        self.spec, self.domain, self.tokens = spec, domain, tokens
        self.limit = prompt_limit(spec, max_model_len)
        words = {
            "singular": domain.singular,
            "plural": domain.plural,
            "verb": domain.verb,
            "factors": "\n".join(f"- {factor}" for factor in domain.factors),
        }
        self._system = Template(spec.system).substitute(words).strip()
        marks = {name: f"\ue000{name}\ue000" for name in _FACTS[spec.entity]}
        # Static text at even places, names of facts at odd ones: facts are joined in, never parsed.
        self._user = Template(spec.user).substitute(words | marks).strip().split("\ue000")
        self._counts: dict[str, int] = {}
        self._said: dict[tuple[str, float | None, float | None], str] = {}
        bare = self._messages([], [])
        self._fixed = (
            tokens.count(bare) if tokens else sum(estimate_tokens([m["content"] for m in bare])) + 8 * len(bare)
        )
        if self._fixed >= self.limit:
            raise ConfigError(
                f"prompt {spec.name!r} needs {self._fixed} tokens before it names anything, but only {self.limit} fit "
                f"(budget {spec.budget}, max_tokens {spec.max_tokens}, model length {max_model_len or 'unbounded'})"
            )

    def render(self, facts: Iterable[Facts]) -> list[Rendered | None]:
        """Messages of each, in order; None where not even one line of facts fits."""
        lines = [self._lines(one) for one in facts]
        new = list({line for pair in lines for part in pair for line in part}.difference(self._counts))
        self._counts.update(zip(new, self._count(new), strict=True))
        return [self._fit(*pair) for pair in lines]

    def _count(self, lines: Sequence[str]) -> Sequence[int]:
        return self.tokens.count_lines(lines) if self.tokens else estimate_tokens(lines)

    def _lines(self, facts: Facts) -> tuple[list[str], list[str]]:
        """(lines that are cut first, oldest first; lines about the entity itself, the dearest first)."""
        about = attribute_lines(facts.attributes)
        if isinstance(facts, ItemFacts):
            return [], [facts.title, *about]
        return [self._history_line(item, rating, facts.best) for item, rating in facts.history], about

    def _history_line(self, item: ItemFacts, rating: float | None, best: float | None) -> str:
        key = (item.title, rating, best)
        line = self._said.get(key)
        if line is None:
            line = f"- {item.title or f'an untitled {self.domain.singular}'}"
            if rating is not None:
                words = {"rating": f"{rating:g}", "best": f"{rating if best is None else best:g}"}
                line += f": {Template(self.domain.rating).substitute(words)}"
            self._said[key] = line
        return line

    def _messages(self, history: list[str], about: list[str]) -> Messages:
        if self.spec.entity == "item":
            said = {"title": about[0] if about else "", "attributes": "\n".join(about[1:])}
        else:
            said = {"profile": "\n".join(about) or "nothing is known", "history": "\n".join(history)}
        text = "".join([said[part] if place % 2 else part for place, part in enumerate(self._user)])
        user = {"role": "user", "content": text.rstrip()}
        return ({"role": "system", "content": self._system}, user) if self._system else (user,)

    def _fit(self, history: list[str], about: list[str]) -> Rendered | None:
        """The newest history, then as much about the entity as there is room for; see `_within`."""
        limit = self.limit
        for _ in range(4):
            kept = self._within(limit - self._fixed, history, about)
            if kept is None:
                return None
            messages = self._messages(kept[0], kept[1])
            n_tokens = self._fixed + kept[2]
            # Lines are counted apart from each other: near the limit the whole is counted to be sure.
            if self.tokens and n_tokens > 0.9 * self.limit:
                n_tokens = self.tokens.count(messages)
            if n_tokens <= self.limit:
                return Rendered(messages, n_tokens, shortened=kept[0] != history or kept[1] != about)
            limit -= n_tokens - self.limit
        return None

    def _within(self, room: int, history: list[str], about: list[str]) -> tuple[list[str], list[str], int] | None:
        """(history, about, tokens) cut to `room` tokens: oldest history first, then the last of `about`, then words."""
        counts = self._counts
        used = sum([counts[line] for line in about])
        if used + sum([counts[line] for line in history]) <= room:
            return history, about, used + sum([counts[line] for line in history])
        needed = counts[history[-1]] if history else 0
        about = list(about)
        while used + needed > room and len(about) > (self.spec.entity == "item"):
            used -= counts[about.pop()]
        if used + needed > room:  # one line is left, and it is too long
            line = self._cut(history[-1] if history else about[0], room)
            if line is None:
                return None
            n_tokens = self._count([line])[0]
            return ([line], [], n_tokens) if history else ([], [line], n_tokens)
        kept: list[str] = []
        for line in reversed(history):
            if used + counts[line] > room:
                break
            used += counts[line]
            kept.append(line)
        return kept[::-1], about, used

    def _cut(self, line: str, room: int) -> str | None:
        """The longest opening of `line` found by halving that has at most `room` tokens, or None."""
        while len(line) > 8:
            line = clean(line[: len(line) // 2]) + ELLIPSIS
            if self._count([line])[0] <= room:
                return line
        return None


def prompt_limit(spec: PromptSpec, max_model_len: int | None) -> int:
    """Tokens that a prompt may have: its budget, or what the model's length leaves beside the answer."""
    return spec.budget if max_model_len is None else min(spec.budget, max_model_len - spec.max_tokens)


def _variables(text: str, message: str) -> list[str]:
    template = Template(text)
    if not template.is_valid():
        raise ValueError(f"the {message} message holds a $ that starts no variable; a plain dollar sign is written $$")
    found = (m["named"] or m["braced"] for m in template.pattern.finditer(text))
    return [name for name in found if name]
