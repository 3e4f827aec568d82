"""How does the small LM learn? Next-token loss on answers and on the encyclopedia, in a fixed number of steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True)
class Recipe:
    """Everything about the model and its training. All of it is part of the saved model's key."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 3
    head: int = 64
    hidden: int = 384
    max_length: int = 2048
    users: int = 12_000
    longest: int = 30
    steps: int = 700
    alone: float = 0.15
    """Share of the steps in which only items are learned: users are told by what is known of items."""
    items_alone: int = 64
    item_batch: int = 16
    user_batch: int = 24
    page_batch: int = 4
    curriculum: float = 0.6
    """Share of the steps after which the histories shown have grown from one rating to the longest."""
    embedding_scale: float = 0.3
    muon_rate: float = 0.02
    rate: float = 0.01
    warmup: float = 0.03
    steady: float = 0.5
    """Share of the steps after which the learning rates begin to fall."""
    seed: int = 1


@dataclass(frozen=True)
class Shelf:
    """Token ids of one kind of lesson; `prompts[i]` gives no loss, `answers[i]` does."""

    prompts: list[list[int]]
    answers: list[list[int]]

    def batch(self, places: np.ndarray, pad: int) -> tuple[Any, Any]:
        """(ids, targets) int64 [len(places), longest]; the target of a place is the next id, -100 without loss."""
        import torch

        rows = [self.prompts[p] + self.answers[p] for p in places]
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), pad, np.int64)
        targets = np.full((len(rows), longest), -100, np.int64)
        for k, (place, row) in enumerate(zip(places, rows, strict=True)):
            ids[k, : len(row)] = row
            start = max(len(self.prompts[place]), 1)
            targets[k, start - 1 : len(row) - 1] = row[start:]
        return torch.from_numpy(ids), torch.from_numpy(targets)


def make_model(recipe: Recipe, tokenizer: Any) -> Any:
    """An untrained Llama of the recipe's size for this tokenizer, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    heads = recipe.width // recipe.head
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=recipe.width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=recipe.head,
        max_position_embeddings=recipe.max_length,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.02,
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=recipe.embedding_scale)
    return model


def train(
    model: Any, items: Shelf, users: Shelf, pages: Shelf, recipe: Recipe, *, pad: int, on_progress: Progress
) -> None:
    """Train in place: every step takes some lessons of each shelf.

    `users` is sorted by the length of its histories: the first steps draw from its short ones only. What is asked of a
    long history is what is asked of a short one, and a small model finds it there.
    """
    import torch

    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimisers = [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    starts = [group["lr"] for group in groups]
    rng = np.random.default_rng(recipe.seed)
    n_items, n_pages = len(items.answers), len(pages.answers)
    turns = [
        _turns(rng, n_items, recipe.items_alone),
        _turns(rng, n_items, recipe.item_batch),
        _turns(rng, n_pages, recipe.page_batch),
    ]
    model.train()
    for step in range(recipe.steps):
        done = step / recipe.steps
        for group, start in zip(groups, starts, strict=True):
            group["lr"] = start * _schedule(done, recipe.warmup, recipe.steady)
        batches = [(items, next(turns[0]) if done < recipe.alone else next(turns[1]))]
        if done >= recipe.alone:
            grown = min(1.0, (done - recipe.alone) / (recipe.curriculum - recipe.alone))
            shown = max(recipe.user_batch, int(len(users.answers) * grown))
            batches += [(users, rng.integers(0, shown, recipe.user_batch)), (pages, next(turns[2]))]
        for shelf, places in batches:
            _loss(model, *shelf.batch(places, pad)).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        on_progress(step + 1, recipe.steps)
    model.eval()


def _turns(rng: np.random.Generator, n: int, size: int) -> Iterator[np.ndarray]:
    """The numbers below `n` in random order, again and again, `size` at a time."""
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(n)])
        yield waiting[:size]
        waiting = waiting[size:]


def _loss(model: Any, ids: Any, targets: Any) -> Any:
    import torch

    kept = targets != -100
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[kept]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), targets[kept])


def _schedule(done: float, warmup: float, steady: float) -> float:
    """Share of the learning rate: up in a straight line, level, then down in a straight line."""
    if done < warmup:
        return (done + 1e-3) / warmup
    return 1.0 if done < steady else max(0.01, (1 - done) / (1 - steady))
