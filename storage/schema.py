"""What columns does every table have? Named once, checked at every writer.

External ids are strings everywhere in storage; dense integer ids exist only inside `ctr_models`. Times are int64: UTC
seconds where the dataset's clock is "time", the place in the user's sequence where it is "position".
"""

import hashlib
import io
from collections.abc import Mapping, Sequence

import polars as pl

from storage.errors import DataError

EARLIEST = -(2**62)
"""`as_of` of text made from static metadata alone: before every label, so it always joins."""

Schema = Mapping[str, pl.DataType | type[pl.DataType]]

INTERACTIONS: Schema = {
    "user_id": pl.String,
    "item_id": pl.String,
    "rating": pl.Float32,  # null where the source has no ratings (implicit feedback)
    "timestamp": pl.Int64,
    "source_row": pl.Int64,  # line number in the source file: breaks ties of equal time, reproducibly
}
USERS: Schema = {"user_id": pl.String}
ITEMS: Schema = {"item_id": pl.String, "title": pl.String}
ATTRIBUTE_TYPES = (pl.String, pl.Int64, pl.Float64, pl.List(pl.String))
"""What a further column of `users` or `items` may be: one word, a whole number, a real number, several words."""

QUARANTINE: Schema = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "content": pl.String}

PROMPTS: Schema = {
    "source_hash": pl.String,  # hash of the facts, the prompt, the domain words and the engine's identity
    "text_key": pl.String,  # hash of everything that can change the text: see llm_features.plan
    "messages": pl.String,  # the exact messages, as JSON
}
TEXTS: Schema = {
    "text_key": pl.String,
    "text": pl.String,
    "finish_reason": pl.String,  # stop | length | error | set_aside
    "n_prompt_tokens": pl.Int32,
    "n_output_tokens": pl.Int32,
    "engine": pl.String,  # the engine's identity, as JSON
    "created_at": pl.Int64,
    "run_id": pl.String,
}
FEATURES: Schema = {
    "entity_id": pl.String,
    "as_of": pl.Int64,  # data time: the newest interaction the text could have seen
    "created_at": pl.Int64,  # wall clock: when the text came to exist
    "n_history": pl.Int32,  # interactions the text was allowed to see; 0 for items
    "source_hash": pl.String,
    "text_key": pl.String,
    "text_hash": pl.String,  # sha256 of the text: the key of its vector
    "text": pl.String,
    "n_tokens": pl.Int32,  # encoder tokens of the whole text, before any truncation
    "truncated": pl.Boolean,  # the encoder did not see all of it
}
REJECTED: Schema = {
    "entity_id": pl.String,
    "as_of": pl.Int64,
    "reason": pl.String,  # a name from llm_features.quality
    "text_key": pl.String,
    "text": pl.String,
    "finish_reason": pl.String,
}
RECOMMENDATIONS: Schema = {
    "user_id": pl.String,
    "item_id": pl.String,
    "score": pl.Float32,
    "rank": pl.Int32,
}


def check(frame: pl.DataFrame, schema: Schema, *, table: str, extra: bool = False) -> pl.DataFrame:
    """Return `frame` with the columns of `schema` in order, or say what is wrong.

    `extra` allows further columns of the attribute types, kept after the named ones (the users and items tables).
    Raises DataError naming the table, the column and the types allowed.
    """
    for name, dtype in schema.items():
        if name not in frame.columns:
            raise DataError(f"table {table!r} has no column {name!r}; it has {frame.columns}")
        if frame.schema[name] != dtype:
            raise DataError(f"table {table!r} column {name!r} is {frame.schema[name]}; it must be {dtype}")
    others = [name for name in frame.columns if name not in schema]
    if others and not extra:
        raise DataError(f"table {table!r} has columns it should not have: {others}")
    for name in others:
        if frame.schema[name] not in ATTRIBUTE_TYPES:
            allowed = ", ".join(str(t) for t in ATTRIBUTE_TYPES)
            raise DataError(f"table {table!r} attribute {name!r} is {frame.schema[name]}; allowed are {allowed}")
    return frame.select([*schema, *others])


def content_hash(*frames: pl.DataFrame, extra: Sequence[str] = ()) -> str:
    """Hex sha256 of what tables say: equal for equal columns and rows in equal order, whatever wrote them.

    Sort by a key first; leave out columns that say when or where a row was written. `extra` strings count too.
    """
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(list(frame.schema.items())).encode())
        for part in frame.iter_slices(100_000):
            lines = io.BytesIO()
            part.write_ndjson(lines)
            digest.update(lines.getbuffer())
    for text in extra:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()
