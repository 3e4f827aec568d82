"""How are prompts sent so that a killed night loses little, and one bad prompt does not stop the others?

Answers are stored in parts as they come, and prompts that were sent and are not yet on the disk never exceed a shard.
An engine that dies is started again for what it left; a prompt that keeps killing it is found by bisection and set
aside. A prompt that fails by itself is counted and not stored, so the next night sends it again.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import polars as pl

from llm_features.engines import Completion, Engine, EngineDied, Request
from storage.cache import Cache
from storage.errors import GenerationError
from storage.schema import TEXTS

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 60.0
"""Answers wait this long at most to be stored, where answers come slowly."""

MAX_DEATHS = 64
"""Deaths of the engine after which a night stops."""

MAX_FAILURES = 64
"""Prompts in a row that may fail one by one before the engine counts as broken."""

SHOWN = 3
"""Failed prompts that are named in the log."""


@dataclass(frozen=True)
class GenerationSummary:
    """What became of the prompts: sent = committed + errors. set_aside: of those committed, without a text.

    errors: prompts that failed, stored nowhere. deaths: times that the engine died. Tokens are those of the answers
    committed; seconds from the first prompt to the last answer, the start of the engine included.
    """

    sent: int
    committed: int
    set_aside: int
    errors: int
    deaths: int
    n_prompt_tokens: int
    n_output_tokens: int
    seconds: float


def generate(
    requests: Sequence[Request],
    engine: Engine,
    texts: Cache,
    *,
    run_id: str,
    shard_size: int = 512,
    on_progress: Callable[[int, int], None] | None = None,
) -> GenerationSummary:
    """Send every request whose key `texts` does not hold and store the answers; on_progress(done, to do) after each.

    Whatever ends it, an error or Ctrl-C, what was answered is stored first. Raises GenerationError where the engine
    cannot start, or answers nothing any more; StoreError where answers cannot be stored.
    """
    todo = list({request.key: request for request in requests if request.key not in texts}.values())
    # In flight and answered-but-not-stored together make a shard: the engine works while a part is written.
    part = max(1, shard_size // 4)
    in_flight = shard_size - part + 1
    started = time.monotonic()
    answered = _Answered(texts, json.dumps(dict(engine.identity), sort_keys=True) if todo else "", run_id, part)
    deaths = _Deaths()
    done = failed_in_a_row = 0
    try:
        with contextlib.closing(_surviving(todo, engine, deaths, in_flight=in_flight)) as completions:
            for completion in completions:
                done += 1
                failed_in_a_row = failed_in_a_row + 1 if completion.finish_reason == "error" else 0
                answered.add(completion)
                if failed_in_a_row == MAX_FAILURES:
                    raise GenerationError(f"{MAX_FAILURES} prompts in a row failed; the last one: {completion.text}")
                if on_progress:
                    on_progress(done, len(todo))
    finally:
        answered.commit()
    summary = GenerationSummary(
        sent=done,
        committed=answered.committed,
        set_aside=answered.set_aside,
        errors=answered.errors,
        deaths=deaths.count,
        n_prompt_tokens=answered.n_prompt_tokens,
        n_output_tokens=answered.n_output_tokens,
        seconds=time.monotonic() - started,
    )
    logger.info("generate %s", " ".join(f"{name}={value}" for name, value in vars(summary).items()))
    return summary


class _Answered:
    """Answers on their way to the texts cache, and what is counted of them."""

    def __init__(self, texts: Cache, engine: str, run_id: str, part: int) -> None:
        self._texts, self._engine, self._run_id, self._part = texts, engine, run_id, part
        self._rows: list[tuple[object, ...]] = []
        self._oldest = 0.0
        self.committed = self.set_aside = self.errors = self.n_prompt_tokens = self.n_output_tokens = 0

    def add(self, completion: Completion) -> None:
        """Count an answer; store it with those before it where they make a part or have waited long."""
        if completion.finish_reason == "error":
            self.errors += 1
            if self.errors <= SHOWN:
                logger.warning("prompt %s failed: %s", completion.key[:12], completion.text)
        else:
            now = time.time()
            self._oldest = self._oldest if self._rows else now
            numbers = (completion.n_prompt_tokens, completion.n_output_tokens)
            text = completion.text.encode(
                "utf-8", "replace"
            ).decode()  # half a character (a lone surrogate) fits no file
            said = (completion.key, text, completion.finish_reason, *numbers)
            self._rows.append((*said, self._engine, int(now), self._run_id))
        if len(self._rows) >= self._part or (self._rows and time.time() - self._oldest > COMMIT_SECONDS):
            self.commit()

    def commit(self) -> None:
        """Store what is not stored yet."""
        rows, self._rows = self._rows, []
        if rows:
            frame = pl.DataFrame(rows, schema=TEXTS, orient="row")
            self._texts.append(frame)
            self.committed += len(frame)
            self.set_aside += frame.filter(pl.col("finish_reason") == "set_aside").height
            self.n_prompt_tokens += int(frame["n_prompt_tokens"].sum())
            self.n_output_tokens += int(frame["n_output_tokens"].sum())


@dataclass
class _Deaths:
    count: int = 0


@dataclass(frozen=True)
class _Group:
    """Prompts that go to the engine together. suspected: it died with all of them once. alone: times that it died of
    this one prompt alone."""

    requests: list[Request] = field(repr=False)
    suspected: bool = False
    alone: int = 0


def _surviving(requests: list[Request], engine: Engine, deaths: _Deaths, *, in_flight: int) -> Generator[Completion]:
    """Answers of all requests; those that kill the engine, alone and twice, are answered as set aside."""
    groups = [_Group(requests)] if requests else []
    while groups:
        group = groups.pop()
        left = {request.key: request for request in group.requests}
        try:
            for completion in engine.generate(group.requests, in_flight=in_flight):
                del left[completion.key]
                yield completion
            if left:
                raise GenerationError(f"the engine gave no answer to {len(left)} of {len(group.requests)} prompts")
        except EngineDied as died:
            deaths.count += 1
            if deaths.count >= MAX_DEATHS:
                raise GenerationError(f"the engine died {deaths.count} times; the last time: {died}") from died
            logger.warning("the engine died with %d prompts and is started again: %s", len(died.unfinished), died)
            unsent = [request for key, request in left.items() if key not in died.unfinished]
            suspects = [request for key, request in left.items() if key in died.unfinished] or unsent
            if suspects is not unsent and unsent:
                groups.append(_Group(unsent, group.suspected))
            if not suspects:  # it died after its last answer
                continue
            if len(group.requests) == 1:
                if group.alone:
                    _prove_alive(engine, died)
                    yield Completion(suspects[0].key, "", "set_aside")
                else:
                    groups.append(_Group(suspects, suspected=True, alone=1))
            elif group.suspected and len(suspects) > 1:
                half = len(suspects) // 2
                groups += [_Group(suspects[half:], suspected=True), _Group(suspects[:half], suspected=True)]
            else:
                groups.append(_Group(suspects, suspected=True))


def _prove_alive(engine: Engine, died: EngineDied) -> None:
    """A prompt is to blame for a death only where the engine, started again, answers another one; else raise."""
    hello = Request("hello", "", ({"role": "user", "content": "Hello."},), max_tokens=1)
    try:
        alive = any(completion.finish_reason != "error" for completion in engine.generate([hello], in_flight=1))
    except EngineDied:
        alive = False
    if not alive:
        raise GenerationError(f"the engine dies whatever it is sent: {died}") from died
