"""Which texts have no vector yet, and where do vectors lie? Each distinct text is encoded once for each encoder.

`<vectors>/<start of the hash of the encoder's identity>/` is a `Cache` of one encoder, with the whole identity in
`encoder.json` beside the parts, so vectors of two encoders never meet.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from llm_features import encoders
from llm_features.encoders import Encoder
from storage import plugins
from storage.cache import Cache
from storage.disk import write_atomic
from storage.errors import ConfigError, StoreError
from storage.schema import Schema

PART = 1024
"""Texts that are encoded before they are stored: what a killed run repeats at most."""


@dataclass(frozen=True)
class EncodeSummary:
    """Distinct texts asked for = encoded now + cached. truncated: of those asked for, how many were longer than the
    encoder sees; n_tokens: the encoder's tokens of all of them, whole. seconds: of encoding."""

    encoded: int
    cached: int
    truncated: int
    n_tokens: int
    seconds: float


def text_hash(text: str) -> str:
    """Key of a text's vector: hex sha256 of its UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def open_encoder(settled: Path, name: str, options: Mapping[str, object], texts: Sequence[str]) -> Encoder:
    """Encoder plug-in `name` with `options`. What it leaves to the machine is measured on `texts` once and kept in
    the file `settled`, so that its identity is the same every night; other options are settled anew.

    Raises ConfigError where the name or the options are wrong or the model cannot be loaded.
    """
    module = plugins.load(encoders, name)
    try:
        asked = module.Config(**options)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"encoder {name!r}: {wrong}") from error
    wanted = json.loads(asked.model_dump_json())
    try:
        kept = json.loads(settled.read_text(encoding="utf-8")) if settled.is_file() else {}
        if kept and module.Config(**kept["asked"]) == asked:  # options that came later had their default then
            return module.Encoder(module.Config(**kept["settled"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StoreError(f"{settled} is damaged ({error}); delete it to settle the encoder anew") from error
    config, measured = module.Encoder.settle(asked, texts)
    if config != asked and texts:
        found = {"asked": wanted, "settled": json.loads(config.model_dump_json()), "measured": dict(measured)}
        write_atomic(settled, json.dumps(found, indent=1).encode())
    return module.Encoder(config)


def vectors_schema(dim: int) -> Schema:
    """Columns of a vectors cache."""
    return {
        "text_hash": pl.String,
        "vector": pl.Array(pl.Float32, dim),
        "n_tokens": pl.Int32,  # the encoder's tokens of the whole text
        "truncated": pl.Boolean,  # the encoder did not see all of it
    }


def vectors_cache(folder: Path, encoder: Encoder) -> Cache:
    """The vectors of `encoder` under `folder`. Raises StoreError where its place holds another encoder's."""
    place = folder / hashlib.sha256(encoder.identity.encode()).hexdigest()[:16]
    about, said = place / "encoder.json", {"identity": encoder.identity, "dim": encoder.dim}
    cache = Cache(place, vectors_schema(encoder.dim), key="text_hash")
    if not about.is_file() and not len(cache):
        write_atomic(about, json.dumps(said, indent=1).encode())
    try:
        there = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{about} is missing or damaged, so nobody knows whose vectors lie there: {error}") from error
    if there != said:
        raise StoreError(f"{place} holds vectors of {there}; those of {said} must not be mixed with them")
    return cache


def encode(
    texts: Sequence[str],
    encoder: Encoder,
    folder: Path,
    *,
    part: int = PART,
    on_progress: Callable[[int, int], None] | None = None,
) -> EncodeSummary:
    """Give every distinct text of `texts` a vector in `vectors_cache(folder, encoder)`, saved as they come.

    on_progress(done, to do) is called after each part of `part` texts. Raises ValueError where a text is blank,
    GenerationError where a vector is not finite, StoreError where the cache is another encoder's or cannot be written.
    """
    cache = vectors_cache(folder, encoder)
    by_hash = {text_hash(text): text for text in texts}
    missing = cache.missing(by_hash)
    started = time.perf_counter()
    for start in range(0, len(missing), part):
        keys = missing[start : start + part]
        found = encoder.encode([by_hash[key] for key in keys])
        columns = {"text_hash": keys, "vector": found.vectors, "n_tokens": found.n_tokens, "truncated": found.truncated}
        cache.append(pl.DataFrame(columns, schema=cache.schema))
        if on_progress:
            on_progress(start + len(keys), len(missing))
    seconds = time.perf_counter() - started
    about = cache.fetch(list(by_hash), columns=["text_hash", "n_tokens", "truncated"])
    return EncodeSummary(
        encoded=len(missing),
        cached=len(by_hash) - len(missing),
        truncated=int(about["truncated"].sum()),
        n_tokens=int(about["n_tokens"].sum()),
        seconds=seconds,
    )
