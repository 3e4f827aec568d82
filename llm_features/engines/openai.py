"""How does any server that speaks OpenAI's protocol write the night's text? `vllm serve` first of all.

Many requests are under way at once; one that fails for a passing reason is sent again, later and later; one that
fails for good is an error of its own row. The server applies the chat template, so control tokens in titles are broken
up before they are sent.
"""

import asyncio
import contextlib
import email.utils
import logging
import os
import queue
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from llm_features import engines
from llm_features.engines import Completion, FinishReason, Request
from llm_features.engines._openai_config import Config
from llm_features.text import defang
from storage.errors import ConfigError, GenerationError

__all__ = ["Config", "Engine"]

logger = logging.getLogger(__name__)

PASSING = frozenset({408, 409, 425, 429})
"""Statuses that are worth another try, beside all from 500 on."""

LONGEST_WAIT = 60.0
"""Seconds between two tries at most, where the server does not ask for more."""

LONGEST_ASKED = 600.0
"""Seconds that a server may ask us to wait."""


class Engine(engines.Engine):
    """A model behind a server. Raises ConfigError where the key is not set or the server has no such model,
    GenerationError where it does not answer."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._said = False

    @property
    def identity(self) -> Mapping[str, object]:
        """Model, what is known of its version, and decoding parameters."""
        kept = {"model", "revision", "temperature", "top_p", "seed", "extra_body"}
        return {"engine": "openai", **self._config.model_dump(include=kept)}

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer together, where they are known."""
        return self._config.max_model_len

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer every request once as they finish; see `Engine.generate`."""
        key = self._key()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        done: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        out: set[Future[Completion]] = set()
        waiting = iter(requests)
        client = _Client(self._config, key)
        try:
            asyncio.run_coroutine_threadsafe(client.open(), loop).result()
            if not self._said:
                self._said = True
                logger.warning("prompts about users and items are sent to %s", self._config.base_url)
            while True:
                while len(out) < in_flight and (request := next(waiting, None)) is not None:
                    future = asyncio.run_coroutine_threadsafe(client.answer(request), loop)
                    out.add(future)
                    future.add_done_callback(done.put)
                if not out:
                    return
                future = done.get()
                out.discard(future)
                yield future.result()
        finally:
            asyncio.run_coroutine_threadsafe(client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _key(self) -> str:
        name = self._config.api_key_env
        if name is None:
            return "none"  # the client insists on one; servers that want none ignore it
        key = os.environ.get(name)
        if not key:
            raise ConfigError(f"the environment variable {name} is not set; it must hold the key of the server")
        return key


class _Client:
    """The server, from inside the event loop."""

    def __init__(self, config: Config, key: str) -> None:
        from openai import AsyncOpenAI

        self._config, self._key = config, key
        self._server = AsyncOpenAI(api_key=key, base_url=config.base_url, timeout=config.timeout, max_retries=0)
        self._turns = asyncio.Semaphore(config.max_concurrency)

    async def open(self) -> None:
        """Ask the server what models it has. Raises ConfigError, GenerationError."""
        from openai import APIConnectionError, APIStatusError

        config = self._config
        try:
            found = await self._server.with_options(timeout=min(30.0, config.timeout)).models.list()
            names = [str(model.id) for model in found.data]
        except APIStatusError as error:
            if error.status_code in (401, 403):
                where = f"in {config.api_key_env}" if config.api_key_env else "(api_key_env is not set)"
                raise ConfigError(f"{config.base_url} refuses the key {where}: {self._told(_short(error))}") from None
            logger.warning("%s does not list its models (%s)", config.base_url, self._told(_short(error)))
            return
        except APIConnectionError as error:
            cause = error.__cause__ or error
            raise GenerationError(f"no server answers at {config.base_url}: {cause}") from None
        except (ValueError, TypeError, AttributeError):
            raise GenerationError(f"what answers at {config.base_url} does not speak OpenAI's protocol") from None
        if config.model not in names:
            there = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
            raise ConfigError(f"{config.base_url} has no model {config.model!r}; there are: {there}")

    async def answer(self, request: Request) -> Completion:
        """The answer, after as many tries as it takes, or an error."""
        said = ""
        async with self._turns:
            for turn in range(self._config.max_retries + 1):
                try:
                    return await self._ask(request)
                except Exception as error:  # whatever it is, it is of this row alone
                    said, passing, asked = _judged(error)
                if not passing or turn == self._config.max_retries:
                    break
                wait = min(LONGEST_WAIT, self._config.first_wait * 2**turn) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, asked))
        return Completion(request.key, self._told(said), "error")

    def _told(self, said: str) -> str:
        """What a server said, without the key, which some servers repeat."""
        return said.replace(self._key, "***") if len(self._key) > 4 else said

    async def close(self) -> None:
        """Drop what is under way."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._server.close()

    async def _ask(self, request: Request) -> Completion:
        config = self._config
        messages: Any = [{"role": m["role"], "content": defang(m["content"])} for m in request.messages]
        given: dict[str, Any] = config.model_dump(include={"temperature", "top_p", "seed"}, exclude_none=True)
        given[config.max_tokens_name] = request.max_tokens
        found = await self._server.chat.completions.create(
            model=config.model, messages=messages, extra_body=config.extra_body or None, **given
        )
        edition = re.escape(config.model) + r"([-:@.].*)?"
        if not re.fullmatch(re.escape(config.answers_as) if config.answers_as else edition, str(found.model)):
            return Completion(request.key, f"another model answered: {str(found.model)[:100]!r}", "error")
        choice = found.choices[0]
        text, reason = choice.message.content or "", str(choice.finish_reason)
        if not isinstance(text, str):
            raise TypeError(f"the text is a {type(text).__name__}")
        finish: FinishReason = "stop" if reason == "stop" else "length" if reason == "length" else "error"
        if finish == "error":
            text = f"the server ended the answer with {reason!r}"
        counts = [_count(getattr(found.usage, name, None)) for name in ("prompt_tokens", "completion_tokens")]
        return Completion(request.key, text, finish, *counts)


def _judged(error: Exception) -> tuple[str, bool, float]:
    """(what to say, whether another try may help, seconds the server asks to wait)."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        passing = error.status_code in PASSING or error.status_code >= 500
        return _short(error), passing, _asked(error.response.headers.get("retry-after"))
    if isinstance(error, APIConnectionError):
        return f"{type(error).__name__}: {error.__cause__ or error}", True, 0.0
    return f"the server's answer cannot be read: {type(error).__name__}: {error}"[:300], True, 0.0


def _count(said: object) -> int:
    """Tokens as a server counts them; 0 where it says nothing that could be a number of tokens."""
    return said if isinstance(said, int) and 0 <= said < 2**31 else 0


def _asked(header: str | None) -> float:
    """Seconds of a Retry-After header, which holds a number or a date."""
    seconds = 0.0
    if header:
        with contextlib.suppress(ValueError, TypeError):
            try:
                seconds = float(header)
            except ValueError:
                seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_ASKED) if seconds == seconds else 0.0


def _short(error: Any) -> str:
    return f"status {error.status_code}: {error.message}"[:300]
