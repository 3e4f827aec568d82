"""What was paid once, so that requests are cheap? Tokens, seconds and bytes of each feature set and of an entity."""

from pathlib import Path

import polars as pl

from flows.night import nights
from llm_features.build import texts_cache
from storage import files
from storage.features import feature_sets, folder

COUNTED = ["text_key", "n_prompt_tokens", "n_output_tokens"]

COSTS = {
    "feature_set": pl.String,
    "entity": pl.String,
    "entities": pl.Int64,
    "texts": pl.Int64,  # distinct prompts behind the newest version, those refused by the quality gate among them
    "prompt_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "generate_seconds": pl.Float64,  # of all recorded nights; null where none is recorded
    "encode_seconds": pl.Float64,
    "bytes": pl.Int64,  # of the newest version: texts, keys and vectors
    "vector_bytes": pl.Int64,  # of one vector in memory
    "tokens_per_entity": pl.Float64,
    "seconds_per_entity": pl.Float64,
    "bytes_per_entity": pl.Float64,
}


def costs(root: Path) -> pl.DataFrame:
    """One row for each published feature set. Raises StoreError where a file is damaged."""
    done = [feature for night in nights(root) for feature in night["summary"].get("features", [])]
    texts = texts_cache(root)
    rows = []
    for name in feature_sets(root):
        version = files.version(folder(root, name))
        tables = [files.read_table(version, f"{table}.parquet") for table in ("features", "rejected")]
        keys = pl.concat([table["text_key"] for table in tables]).drop_nulls().unique().to_list()
        paid = texts.fetch([key for key in keys if key in texts], columns=COUNTED)
        prompt, output = (int(paid[f"n_{kind}_tokens"].sum()) for kind in ("prompt", "output"))
        mine = [feature for feature in done if feature["feature"] == name]
        seconds = [sum(feature[step]["seconds"] for feature in mine) for step in ("generation", "encoding")]
        entities, size = version.meta["entities"], sum(said["bytes"] for said in version.manifest["files"].values())
        shown = max(1, entities)
        rows.append(
            (
                *(name, version.meta["entity"], entities, len(keys), prompt, output),
                *(seconds if mine else (None, None)),
                *(size, 4 * version.meta["dim"]),
                *((prompt + output) / shown, sum(seconds) / shown if mine else None, size / shown),
            )
        )
    return pl.DataFrame(rows, schema=COSTS, orient="row")
