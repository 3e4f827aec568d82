"""Is a generated text fit to be a feature? Accept, or reject with a named reason."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Gate(BaseModel, extra="forbid", frozen=True):
    """Thresholds of one prompt. They decide what is accepted, not what is written: changing them sends no prompt."""

    min_words: Annotated[int, Field(ge=1)] = 20
    """Fewer are `too_short`."""
    max_echo: Share = 0.5
    """Share of the text's 6-word sequences that stand in the prompt; more is `echo`."""
    max_repetition: Share = 0.4
    """Share of the text's 4-word sequences that stood in it before; more is `repetition`."""
    script: Literal["latin", "any"] = "latin"
    """Script of the answer."""
    min_script: Share = 0.7
    """Share of the letters that must be of that script, else `wrong_language`."""
    language: Literal["en", "any"] = "en"
    """Language of the answer, told by its stop words."""
    min_stop_words: Share = 0.15
    """Share of the words that are among the commonest of the language, else `wrong_language`."""
