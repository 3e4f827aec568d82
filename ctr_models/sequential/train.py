"""How is a sequential model trained? One loop for all: AdamW, early stopping on validation NDCG, the best epoch kept.

A batch is computed in parts of like length whose gradients add up to the batch's: places after a sequence's end cost
nothing, and no part is larger than a cache. Test queries are never looked at.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ctr_models.sequential.histories import parts
from ctr_models.sequential.losses import LossConfig, Softmax
from ctr_models.sequential.metrics import ndcg
from ctr_models.sequential.model import ModelScorer, SequentialModel, trainable, training_batch
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.reduction import ItemInit, Reduction
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.text import Text
from ctr_models.sequential.zoo import NetworkConfig
from ctr_models.train import cpu_threads
from storage.errors import DataError

RECIPE = 2
"""One more whenever the same configuration and data train another model: what was trained before is trained again."""


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """How sequential models are trained, the same for all of a study."""

    max_length: Annotated[int, Field(ge=2)] = 200
    """The newest so many items of a history are seen."""
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 100
    patience: PositiveInt = 10
    """Evaluations without a better validation NDCG@10 before training stops."""
    evaluate_every: PositiveInt = 1
    """Epochs between two evaluations."""
    validation_queries: PositiveInt | None = None
    """At most so many queries choose the epoch, the same in every epoch; all if None."""
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What is left of the learning rate after more than `patience // 3` evaluations without a better one."""
    clip: NonNegativeFloat = 0.0
    """Largest length of the gradient; 0 does not clip."""
    seed: NonNegativeInt = 0
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all by default."""
    loss: LossConfig = Softmax()


@dataclass(frozen=True)
class Progress:
    """Where training stands, after a batch. `ndcg` is of the last evaluation, NaN before it."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    ndcg: float


@dataclass(frozen=True)
class Run:
    """A trained model with everything needed to use it again, and how it came about.

    kind: a file of the zoo; items: external ids of the training items, `items[0]` is "". init and reduction: how text
    entered, or None. encoder: what made the vectors, "" without. metrics: `best_epoch`, `epochs` (a record each),
    `sequences_per_second`, and what the caller adds; lineage: the sequences'.
    """

    kind: str
    options: NetworkConfig
    config: TrainConfig
    model: SequentialModel
    items: tuple[str, ...]
    init: ItemInit | None
    reduction: Reduction | None
    encoder: str
    metrics: Mapping[str, Any]
    lineage: Mapping[str, object]


def fit(
    data: Sequences,
    *,
    kind: str,
    options: NetworkConfig,
    config: TrainConfig,
    text: Text | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Train network `kind` of the zoo until the validation NDCG@10 stops rising.

    Raises DataError where no training sequence has two items.
    """
    with torch.random.fork_rng(devices=[]), cpu_threads(config.threads):
        torch.manual_seed(config.seed)
        random = np.random.default_rng(config.seed)
        model = SequentialModel(
            kind,
            options,
            data.n_known,
            max_length=config.max_length,
            text=text and text.items,
            text_trainable=text is None or text.init.trainable,
        )
        history, places = trainable(data.train, model.objective, config.max_length)
        if not len(places):
            raise DataError("no training sequence has two items: there is nothing to learn from")
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        plateau: ReduceLROnPlateau | None = None
        if config.decay is not None:
            plateau = ReduceLROnPlateau(optimizer, "max", config.decay, config.patience // 3, threshold=0)
        hidden_share = float(getattr(options, "hidden_share", 0.0))
        asked = data.queries["validation"].sample(config.validation_queries)
        batches = math.ceil(len(places) / config.batch_size)
        records: list[dict[str, float]] = []
        best: dict[str, Tensor] = {}
        best_epoch, best_ndcg, seconds, waited = 0, float("nan"), 0.0, 0
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            model.train()
            total, answered = 0.0, 0
            order = random.permutation(places)
            for step in range(batches):
                chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
                lost, many = _backward(model, config, history, chosen, random, hidden_share)
                _scale_gradients(model, many, config.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                total, answered = total + lost, answered + many
                if progress:
                    progress(Progress(epoch, config.epochs, step + 1, batches, best_ndcg))
            seconds += time.perf_counter() - started
            record: dict[str, float] = {
                "epoch": epoch,
                "loss": total / max(1, answered),
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            records.append(record)
            if epoch % config.evaluate_every and epoch != config.epochs:
                continue
            scorer = ModelScorer(model, data.n_items, text and text.items)
            record["ndcg@10"] = float(ndcg(rank(scorer, asked).ranks, 10).mean())
            if plateau is not None:
                plateau.step(record["ndcg@10"])
            if not best or record["ndcg@10"] > best_ndcg:
                best_epoch, best_ndcg, waited = epoch, record["ndcg@10"], 0
                best = {name: value.clone() for name, value in model.state_dict().items()}
            else:
                waited += 1
                if waited >= config.patience:
                    break
        model.load_state_dict(best)
        model.eval()
    metrics = {
        "best_epoch": best_epoch,
        "validation": {"ndcg@10": best_ndcg, "queries": len(asked)},
        "epochs": records,
        "sequences_per_second": round(len(places) * len(records) / seconds, 1),
        "seconds_per_epoch": round(seconds / len(records), 2),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Run(
        kind,
        options,
        config,
        model,
        tuple(data.items[: data.n_known + 1]),
        text and text.init,
        text and text.reduction,
        text.encoder if text else "",
        metrics,
        data.lineage,
    )


def _backward(
    model: SequentialModel,
    config: TrainConfig,
    history: Any,
    chosen: np.ndarray,
    random: np.random.Generator,
    hidden_share: float,
) -> tuple[float, int]:
    """Add the gradients of a batch's summed loss up, part by part; the sum, and over how many answers."""
    lost, many = 0.0, 0
    for places in parts(history.lengths, chosen):
        batch = training_batch(model, history, places, random, hidden_share=hidden_share)
        part = model.loss(batch, config.loss)
        part.backward()
        lost, many = lost + part.item(), many + int((batch.target_BL > 0).sum())
    return lost, many


def _scale_gradients(model: SequentialModel, many: int, clip: float) -> None:
    """Of the sum to the mean; row 0 is nobody's and learns nothing; no longer than `clip` where that is not 0."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient in gradients:
        gradient.div_(many)
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
