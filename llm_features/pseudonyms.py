"""What if a model must not know an item by its title? Titles become stable pseudonyms, so that only the facts speak.

Language models know public data sets by heart (Di Palma et al. 2025, "Do LLMs Memorize Recommendation Datasets? A
Preliminary Study on MovieLens-1M", arXiv 2505.10212). Text written about pseudonyms cannot draw on that: what it gains
less than text about titles came from the title. Attributes stay as they are; leave out those that tell the title.
"""

import base64
import hashlib
from dataclasses import replace

import polars as pl

from llm_features.domains import Domain
from storage.interactions import Dataset

LETTERS = 8
"""Letters and digits of a pseudonym (5 bits each): of 60,000 items two share one with a probability of 0.2 %."""


def anonymised(dataset: Dataset, domain: Domain) -> Dataset:
    """`dataset` with "Movie 7QK2MXNA" in place of every title; an item keeps its pseudonym whatever it is called.

    Items without a title stay without one.
    """
    items = dataset.items
    names = [f"{domain.singular.capitalize()} {pseudonym(item)}" for item in items["item_id"]]
    title = pl.when(pl.col("title").is_not_null()).then(pl.Series("name", names, pl.String)).alias("title")
    return replace(dataset, items=items.with_columns(title))


def pseudonym(item_id: str) -> str:
    """`LETTERS` letters and digits that stand for an item and say nothing of it."""
    digest = hashlib.sha256(f"pseudonym\0{item_id}".encode()).digest()
    return base64.b32encode(digest).decode()[:LETTERS]
