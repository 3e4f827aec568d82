"""Is a generated text fit to be a feature? Accept, or reject with a named reason."""

import re
import zlib
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from llm_features.text import defang

Share = Annotated[float, Field(ge=0, le=1)]

REASONS = (
    "error",  # the engine failed on this prompt
    "set_aside",  # this prompt killed the engine
    "empty",
    "cut_off",  # the answer needed more tokens than it was given
    "control_tokens",  # control-token literals, control characters or broken bytes
    "refusal",
    "wrong_language",  # or script
    "too_short",
    "repetition",
    "echo",  # of the prompt
)
"""Every reason there is; a text gets the first that holds."""


class Gate(BaseModel, extra="forbid", frozen=True):
    """Thresholds of one prompt. They decide what is accepted, not what is written: changing them sends no prompt."""

    min_words: Annotated[int, Field(ge=1)] = 20
    """Fewer are `too_short`."""
    max_echo: Share = 0.3
    """Share of the text, in blocks of six words, that stands word for word in the prompt; more is `echo`."""
    max_repetition: Share = 0.5
    """Share of the 4-word sequences, of the text or of its last 80 words, that stood there before; more is
    `repetition`."""
    script: Literal["latin", "any"] = "latin"
    """Script of the answer."""
    max_other_script: Share = 0.2
    """Share of the characters that are letters of another script; more is `wrong_language`."""
    language: Literal["en", "any"] = "en"
    """Language of the answer, told by its commonest words."""
    min_common_words: Share = 0.08
    """Share of the words that are among the commonest of the language, else `wrong_language`."""


_COMMON = """
the of and to is that for with as by this it are from which has its their who be not or but have they them these those
while than may might would likely more most other some such through where when what how his her he she one often about
into both also there can seems without
"""
COMMON = frozenset(_COMMON.split())
"""Common English words that other languages written in Latin letters seldom use."""

_ASSISTANT_WORDS = r"(?:an?\s+)?(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)"
_REFUSAL = re.compile(
    rf"""\W*(?:(?:well|oh|hello|hi|unfortunately|apologies|however|okay|ok|sure)\b[\s,.!]*)*
    (?:  (?:i\s?'?\s?a?m\s+)?(?:very\s+|so\s+|truly\s+)?sorry[,.!]?(?:\s*$|\s+(?:but|i|for\s+(?:the|any)|that)\b)
       | (?:i|my)\s+apolog(?:ize|ise|ies)\b
       | i\s+(?:really\s+)?(?:can\s?not|can't|could\s+not|couldn't|won't|will\s+not)\s+
            (?:\w+\s+)?(?:help|assist|provide|answer|describe|comply|do|give|generate|discuss|fulfil|complete|write|infer|
            determine|find|access|say|continue|engage|offer|create|share|make|analy[sz]e|verify|confirm)\b
       | i(?:\s+am|'m)\s+(?:not\s+able|unable)\s+to\b
       | i\s+(?:do\s+not|don't)\s+(?:actually\s+|currently\s+)?(?:have|know|possess)\b
       | i\s+have\s+no\s+(?:information|knowledge|data)\b
       | i\s+must\s+(?:decline|refuse)\b
       | i(?:\s+am|'m)\s+(?:just\s+|only\s+)?{_ASSISTANT_WORDS}\b
       | there\s+is\s+(?:not\s+enough|insufficient|no)\s+information\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_ASSISTANT = re.compile(
    rf"\bas\s+{_ASSISTANT_WORDS}(?:\s+(?:language\s+)?(?:model|assistant|system))?,?\s+(?:i|my)\b", re.IGNORECASE
)
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_BLOCK, _GRAM, _TAIL = 6, 4, 80


def judge(text: str, finish_reason: str, prompt_text: str, gate: Gate | None) -> str | None:
    """The first of `REASONS` that holds for `text`, or None where it is accepted.

    `prompt_text` is the contents of the messages it answers. Without a gate (text made by rule, not by a model) only
    what the engine said and emptiness count. Never raises, whatever the text.
    """
    if finish_reason not in ("stop", "length"):
        return "set_aside" if finish_reason == "set_aside" else "error"
    if not text.strip():
        return "empty"
    if finish_reason == "length":
        return "cut_off"
    if gate is None:
        return None
    if _BROKEN.search(text) or (("<" in text or "[" in text or ">" in text) and defang(text) != text):
        return "control_tokens"
    if _refuses(text, prompt_text):
        return "refusal"
    words = text.lower().split()
    if gate.script == "latin" and _other_script(text) > gate.max_other_script * len(text):
        return "wrong_language"
    if _loops(text, words, gate.max_repetition):
        return "repetition"
    if len(words) < gate.min_words:
        return "too_short"
    if _echoed(words, prompt_text) > gate.max_echo:
        return "echo"
    if gate.language == "en" and sum([word in COMMON for word in words]) < gate.min_common_words * len(words):
        return "wrong_language"
    return None


def _refuses(text: str, prompt_text: str) -> bool:
    start = text[:400].replace("’", "'")
    refusal = _REFUSAL.match(start) or _ASSISTANT.search(start)
    return refusal is not None and refusal[0].strip(" \"'*") not in prompt_text  # a title may read like a refusal


def _other_script(text: str) -> int:
    """Letters that are not Latin."""
    if text.isascii():
        return 0
    return sum(char.isalpha() and not _latin(ord(char)) for char in _NOT_ASCII.findall(text))


def _latin(code: int) -> bool:
    return code < 0x250 or 0x1E00 <= code < 0x1F00 or 0x2C60 <= code < 0x2C80 or 0xA720 <= code < 0xA800


def _loops(text: str, words: list[str], limit: float) -> bool:
    """Whether the text, or the end of it, says the same again and again."""
    if len(text) > 16 * len(words) + 200:  # hardly a space: a loop shows in how well it compresses
        raw = text.encode("utf-8", "replace")
        return len(zlib.compress(raw, 1)) < (1 - limit) * 0.4 * len(raw)
    return _repeats(words, limit) or (len(words) > _TAIL and _repeats(words[-_TAIL:], limit))


def _repeats(words: list[str], limit: float) -> bool:
    """Whether more than `limit` of the 4-word sequences occurred before."""
    total = len(words) - _GRAM + 1
    enough = (1 - limit) * total
    # Each distinct word begins a distinct sequence, so most texts are through after counting words.
    if total < _GRAM or len(set(words[:total])) >= enough:
        return False
    return len(set(zip(words, words[1:], words[2:], words[3:], strict=False))) < enough


def _echoed(words: list[str], prompt_text: str) -> float:
    """Share of up to sixteen six-word blocks of the text, evenly spread, that stand in the prompt."""
    prompt = prompt_text.lower().replace("\n", " ")
    starts = range(0, len(words) - _BLOCK + 1, max(_BLOCK, len(words) // 16))
    found = sum([" ".join(words[at : at + _BLOCK]) in prompt for at in starts])
    return found / len(starts) if starts else 0.0
