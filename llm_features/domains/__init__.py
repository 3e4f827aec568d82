"""Which words does a domain use? One TOML file is one domain; a dataset names the one it belongs to.

The factor list is KAR's (arXiv 2306.10933, section 3.1): the same list asks what a user wants and what an item has, so
that the two answers can be compared.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, field_validator

from llm_features import specs
from storage.errors import ConfigError

FOLDER = Path(__file__).parent
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Domain(BaseModel, extra="forbid", frozen=True):
    """The words of one domain. Everything here changes the prompts, so everything is part of their key."""

    name: str
    singular: Words
    """One of them: "movie"."""
    plural: Words
    """Several: "movies"."""
    verb: Words
    """What users did with them, past tense: "watched"."""
    rating: Words = "rated $rating of $best"
    """How a rating is said in a line of history: $rating is the number, $best the end of the scale."""
    factors: Annotated[tuple[Words, ...], Field(min_length=1)]
    """What tastes differ by, in the order in which a prompt asks for them."""

    @field_validator("rating")
    @classmethod
    def _known_variables(cls, text: str) -> str:
        template = Template(text)
        if not template.is_valid() or not {"rating"} <= set(template.get_identifiers()) <= {"rating", "best"}:
            raise ValueError("must use $rating, may use $best, and nothing else")
        return text

    def only(self, factors: Sequence[str]) -> "Domain":
        """The domain with these of its factors, in its own order; all of them for none.

        Raises ConfigError listing what there is where it has no such factor.
        """
        if unknown := [factor for factor in factors if factor not in self.factors]:
            there = ", ".join(self.factors)
            raise ConfigError(f"domain {self.name!r} has no factor {unknown[0]!r}; there are: {there}")
        kept = tuple(factor for factor in self.factors if factor in factors)
        return self.model_copy(update={"factors": kept}) if factors else self

    @property
    def identity(self) -> dict[str, object]:
        """What of the domain can change a text: all of it but its name."""
        return self.model_dump(mode="json", exclude={"name"})


def available() -> list[str]:
    """Names of the domains."""
    return specs.names(FOLDER)


def load(name: str) -> Domain:
    """The domain called `name`. Raises ConfigError listing what there is, or saying what is wrong with the file."""
    return specs.read(FOLDER, name, Domain)
