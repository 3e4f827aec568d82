"""What can be said of a server that speaks OpenAI's protocol, and what must not be, because it would be stored?"""

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

SECRETS = re.compile(r"api.?key|token|secret|password|authori[sz]ation|credential", re.IGNORECASE)
"""Names of parameters that would carry a secret into every key and manifest."""


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the engine."""

    model: str
    """The model's name at the server."""
    base_url: str = "http://localhost:8000/v1"
    """The server; not part of any key, so the same model may move."""
    revision: str | None = None
    """What you know of the model's version. Part of every key: change it when the model behind the name changes."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key; without it none is sent."""
    temperature: NonNegativeFloat | None = 0.0
    """None: leave it to the server."""
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    extra_body: dict[str, JsonValue] = {}
    """Further parameters of a request, as {chat_template_kwargs = {enable_thinking = false}}; in every key."""
    max_model_len: PositiveInt | None = None
    """Tokens of prompt and answer together that the model holds, where you know it."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the bound on an answer; some want the newer name."""
    answers_as: str | None = None
    """The name the server's answers bear, where that is not `model` or an edition of it (`model-2026-01-01`)."""
    max_concurrency: PositiveInt = 64
    """Requests under way at once."""
    timeout: PositiveFloat = 300.0
    """Seconds to wait for one answer."""
    max_retries: NonNegativeInt = 8
    """Further tries of a request that failed for a passing reason: about three minutes in all."""
    first_wait: PositiveFloat = 1.0
    """Seconds before the second try; each further wait is twice as long."""

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be the address of a server, as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("must not hold a name, a password or parameters: name a variable in api_key_env")
        return url

    @field_validator("extra_body")
    @classmethod
    def _no_secrets(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in _names(body):
            if SECRETS.search(name) and "max" not in name:
                raise ValueError(f"{name!r} looks like a secret, and everything here is stored; use api_key_env")
        return body


def _names(value: JsonValue) -> Iterator[str]:
    """Every key in a JSON value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _names(one)
