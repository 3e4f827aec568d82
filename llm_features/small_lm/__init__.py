"""Where does the embedded default's language model come from? Shipped with the package, or trained where it is not.

A Llama of a few million parameters that has read the encyclopedia of the demonstration world and worked examples of
both prompts. It lies in `shipped/`, made by `python -m llm_features.small_lm`, in the ordinary Hugging Face format, and
vLLM loads it as it loads any model. `key` says what it was made from; another world's model is trained on first use.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llm_features import domains, prompt_specs
from llm_features.small_lm import lessons
from llm_features.small_lm.training import Recipe, Shelf, make_model, train
from llm_features.small_lm.vocabulary import build
from llm_features.tokens import ChatTokens
from storage.datasets import world
from storage.disk import naming

SHIPPED = Path(__file__).parent / "shipped"
ABOUT = "made_from.json"
OnProgress = Callable[[int, int], None]


def ensure(root: Path, config: world.Config | None = None, *, on_progress: OnProgress) -> Path:
    """Folder of the model that knows the world of `config`: the shipped one, or one kept or trained under `root`."""
    config, recipe = config or world.Config(), Recipe()
    wanted = key(config, recipe)
    about = SHIPPED / ABOUT
    if about.is_file() and json.loads(about.read_text(encoding="utf-8"))["key"] == wanted:
        return SHIPPED
    folder = root / "models" / f"small-lm-{wanted}"
    if not folder.is_dir():
        make(folder, config, recipe, on_progress=on_progress)
    return folder


def key(config: world.Config, recipe: Recipe) -> str:
    """Short hash of everything the model is made from: the world's texts, the prompts, the recipe."""
    said = [world.encyclopedia(config)["text"].to_list(), asdict(recipe), world.FACTORS, domains.load("world").identity]
    said += [prompt_specs.load(name).identity for name in ("item_knowledge", "user_preference")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def make(folder: Path, config: world.Config, recipe: Recipe, *, on_progress: OnProgress) -> None:
    """Train the model and save it in Hugging Face format; `folder` appears whole or not at all."""
    tokenizer, shelves = _prepare(config, recipe)
    model = make_model(recipe, tokenizer)
    train(model, *shelves, recipe, pad=tokenizer.pad_token_id, on_progress=on_progress)
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            place = Path(temporary) / "model"
            save(model, tokenizer, place)
            about = {"key": key(config, recipe), "world": config.model_dump(), "recipe": asdict(recipe)}
            (place / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights (bfloat16), configuration, tokenizer and greedy decoding defaults."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _prepare(config: world.Config, recipe: Recipe) -> tuple[Any, tuple[Shelf, Shelf, Shelf]]:
    """The tokenizer, and token ids of the lessons: items, users from short histories to long ones, pages."""
    items, domain = world.draw_items(config), domains.load("world")
    about_item, about_user = (prompt_specs.load(name) for name in ("item_knowledge", "user_preference"))
    pages = world.encyclopedia(config)["text"].to_list()
    whole = [*items.titles, *world.REGIONS, *world.AGES, *lessons.phrases(about_item, about_user, domain)]
    whole += [value for values in world.FACTORS.values() for value in values]
    corpus = [*pages, *_instructions(about_item, about_user)]
    tokenizer = build(whole, corpus, size=recipe.vocabulary, max_length=recipe.max_length)
    chat = ChatTokens(tokenizer)

    def ids(text: str) -> list[int]:
        return [*tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.eos_token_id]

    def shelf(read: list[lessons.Lesson]) -> Shelf:
        return Shelf([list(chat.encode(one.messages)) for one in read], [ids(one.answer) for one in read])

    # As many histories of each length on a logarithmic scale, the short ones first.
    rng = np.random.default_rng(recipe.seed)
    lengths = np.sort(np.rint(np.exp(rng.uniform(0, np.log(recipe.longest + 0.5), recipe.users))).astype(np.int64))
    users = lessons.user_lessons(items, about_user, domain, seed=config.seed, lengths=lengths)
    known = lessons.item_lessons(items, about_item, domain)
    return tokenizer, (shelf(known), shelf(users), Shelf([[] for _ in pages], [ids(page) for page in pages]))


def _instructions(*specs: Any) -> list[str]:
    """The prompts' own words in every domain, so that the tokenizer spells them in pieces and not in bytes."""
    return [
        f"{spec.system} {spec.user} {' '.join(domain.factors)} {domain.singular} {domain.plural}"
        for spec in specs
        for domain in map(domains.load, domains.available())
    ]
