"""How is a model trained? One loop for all: Adam, averaged weights, early stopping on the validation rows' AUC.

What is validated and kept is a moving average of the weights (Polyak and Juditsky 1992, "Acceleration of Stochastic
Approximation by Averaging"; exponential, as torch's `swa_utils` has it): the learning rate stays, its noise goes. Test
rows are never looked at. The same seed, data and machine give the same weights.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LinearLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ctr_models.adaptors import AdaptorConfig, ChosenAdaptor, hybrid_experts
from ctr_models.metrics import auc, logloss, why_no_auc
from ctr_models.model import CTRModel
from ctr_models.samples import SampleConfig, Samples, Split
from ctr_models.text import TextStatistics
from ctr_models.vocabulary import Vocabulary
from ctr_models.zoo import NetworkConfig
from storage.errors import DataError

SCORE_BATCH = 8192

RECIPE = 3
"""One more whenever the same configuration and data train another model: what was trained before is trained again."""


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """How models are trained, the same for all of a run."""

    batch_size: PositiveInt = 2048
    epochs: PositiveInt = 40
    patience: PositiveInt = 5
    """Epochs without a better validation AUC before training stops."""
    schedule: Literal["constant", "linear"] = "constant"
    """The learning rate stays, or falls in a straight line to zero over all `epochs`: about as good in half of them."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """What a step keeps of the average of the weights: 0.99 is an average over about 100 steps; 0 is none."""
    seed: NonNegativeInt = 0
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all by default."""
    samples: SampleConfig = SampleConfig()
    text: ChosenAdaptor = hybrid_experts.Config()


@dataclass(frozen=True)
class Progress:
    """Where training stands, after a batch. `validation_auc` is of the last finished epoch, NaN before it."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    validation_auc: float


@dataclass(frozen=True)
class Run:
    """A trained model with everything needed to use it again, and how it came about.

    kind: a file of the zoo; statistics: of the feature sets it reads, in order; metrics: `best_epoch`, `epochs` (one
    record each, with the validation AUC and LogLoss), `samples_per_second`, and what the caller adds; lineage: the
    snapshot's.
    """

    kind: str
    options: NetworkConfig
    config: TrainConfig
    model: CTRModel
    vocabulary: Vocabulary
    statistics: tuple[TextStatistics, ...]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, object]


def fit(
    samples: Samples,
    *,
    kind: str,
    options: NetworkConfig,
    config: TrainConfig,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Train network `kind` of the zoo until the validation AUC stops rising.

    Raises DataError where the training or validation rows do not hold both labels.
    """
    for split in ("train", "validation"):
        if why := why_no_auc(samples.label[samples.split[split]].numpy()):
            raise DataError(f"the {split} rows cannot be used to train: {why}")
    with torch.random.fork_rng(devices=[]), cpu_threads(config.threads), _large_blocks_kept():
        torch.manual_seed(config.seed)
        texts = samples.texts
        model = CTRModel(kind, options, samples.tables.vocabulary, [t.statistics for t in texts], config.text)
        places = samples.split["train"]
        model.text.fit_scale(samples.similarity[places])
        optimizer = _optimizer(model, options, config.text)
        batches = math.ceil(len(places) / config.batch_size)
        falling = LinearLR(optimizer, 1, 0, config.epochs * batches) if config.schedule == "linear" else None
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.averaging))
        kept: CTRModel = averaged.module  # type: ignore[assignment]
        vectors = {text.name: text.vectors for text in texts}
        history: list[dict[str, float]] = []
        best: dict[str, Tensor] = {}
        best_epoch, best_auc, seconds = 0, float("nan"), 0.0
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            model.train()
            order = places[torch.randperm(len(places))]
            total = 0.0
            for step, chosen in enumerate(order.split(config.batch_size), start=1):
                logits = model(samples.batch(chosen), vectors)
                loss = functional.binary_cross_entropy_with_logits(logits, samples.label[chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if falling:
                    falling.step()
                averaged.update_parameters(model)
                total += loss.item() * len(chosen)
                if progress:
                    progress(Progress(epoch, config.epochs, step, batches, best_auc))
            seconds += time.perf_counter() - started
            labels = samples.label[samples.split["validation"]].numpy()
            scores = score(kept, samples, "validation")
            record = {"epoch": epoch, "loss": total / len(places), "auc": auc(labels, scores)}
            history.append({**record, "logloss": logloss(labels, scores)})
            if not best or record["auc"] > best_auc:
                best_epoch, best_auc = epoch, record["auc"]
                best = {name: value.clone() for name, value in kept.state_dict().items()}
            elif epoch - best_epoch >= config.patience:
                break
        kept.load_state_dict(best)
        kept.eval()
    metrics = {"best_epoch": best_epoch, "epochs": history, "train_rows": len(places)}
    metrics["samples_per_second"] = round(len(places) * len(history) / seconds)
    statistics = tuple(text.statistics for text in texts)
    return Run(kind, options, config, kept, samples.tables.vocabulary, statistics, metrics, samples.lineage)


def score(model: CTRModel, samples: Samples, split: Split) -> np.ndarray:
    """Probabilities of a positive label for the rows of a split, in the snapshot's order; float32 [rows].

    samples: encoded with the vocabulary and the statistics that the model was trained with.
    """
    model.eval()
    vectors = {text.name: text.vectors for text in samples.texts}
    with torch.inference_mode():
        prepared = model.prepare(samples.tables, vectors)
        parts = [
            model(samples.batch(places), vectors, prepared=prepared).sigmoid()
            for places in samples.split[split].split(SCORE_BATCH)
        ]
    return torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)


def _optimizer(model: CTRModel, options: NetworkConfig, text: AdaptorConfig) -> torch.optim.Optimizer:
    rate = options.learning_rate
    groups = [
        {"params": [model.table], "lr": rate, "weight_decay": options.embedding_l2},
        {"params": list(model.network.parameters()), "lr": rate, "weight_decay": options.l2},
        {"params": list(model.text.parameters()), "lr": rate, "weight_decay": text.l2},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], fused=True)


@contextlib.contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads inside; as many as before if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _large_blocks_kept() -> Iterator[None]:
    """Let glibc keep freed blocks instead of giving each back to the kernel.

    By default every tensor above 32 MiB is mapped afresh and its pages are faulted in one by one, for each batch: the
    look-up of a history then costs many times more than the copying itself. Elsewhere than on glibc, nothing happens.
    """
    library = ctypes.CDLL(None)
    adjust = getattr(library, "mallopt", None)
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    if adjust is None:
        yield
        return
    adjust(mmap_threshold, 1 << 30)
    adjust(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        adjust(mmap_threshold, 1 << 17)  # the defaults of glibc
        adjust(trim_threshold, 1 << 17)
        library.malloc_trim(0)
