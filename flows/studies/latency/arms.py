"""Who answers the requests that are timed? A run in a process of its own, or an LLM asked about every candidate."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from flows import steps
from flows.config import RunConfig
from llm_features.engines import Engine
from llm_features.recommenders import YesNo
from storage.errors import StoreError
from storage.interactions import Dataset


class Arm(Protocol):
    """Answers requests. model, arm: how it is named in the tables."""

    model: str
    arm: str

    def start(self) -> None:
        """Begin to load what is needed; the first `rank` waits for it."""
        ...

    def rank(self, user_id: str, item_ids: Sequence[str]) -> float:
        """Rank items for a user; the seconds it took whoever was asked."""
        ...

    def close(self) -> None:
        """Give everything back, so that the next `start` is a cold one. May be called twice."""
        ...


class Served:
    """A trained run of a data root in a fresh process. loaded: LLM libraries that were seen in it."""

    def __init__(self, root: Path, run: str, *, model: str, arm: str) -> None:
        self.model, self.arm, self.loaded = model, arm, set[str]()
        self._command = [sys.executable, "-m", "flows.studies.latency.worker", str(root), run]
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def start(self) -> None:
        """Start the process."""
        pipe, self._log = subprocess.PIPE, tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)

    def rank(self, user_id: str, item_ids: Sequence[str]) -> float:
        """Seconds of ranking inside the process. Raises StoreError with its last words where it has ended."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([user_id, list(item_ids)]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StoreError(f"the process that serves {self.model} ({self.arm} text) has ended: {self._last_words()}")
        said = json.loads(line)
        self.loaded.update(said["loaded"])
        return float(said["seconds"])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _last_words(self) -> str:
        if self._log is None:
            return "it was never started"
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["it said nothing"])[-1]


class Asked:
    """A language model of the run's [engines], asked yes or no about every candidate.

    answers, readable: how many answers came, and how many of them begin with yes or no.
    """

    arm = "llm"

    def __init__(self, config: RunConfig, engine: str, dataset: Dataset) -> None:
        self.model, self.answers, self.readable = engine, 0, 0
        self._config, self._dataset = config, dataset
        self._engine: Engine | None = None
        self._prompts: YesNo | None = None

    def start(self) -> None:
        """Open the engine and read the facts its prompts are made of. Raises ConfigError."""
        engine: Engine = steps.open_engine(self._config, self.model)
        self._engine, self._prompts = engine, YesNo(self._dataset, engine)

    def rank(self, user_id: str, item_ids: Sequence[str]) -> float:
        """Seconds from the facts to the last answer; all prompts are sent at once. Raises GenerationError."""
        assert self._prompts is not None
        started = time.perf_counter()
        answers = self._prompts.ask(user_id, item_ids)
        seconds = time.perf_counter() - started
        self.answers += len(answers)
        self.readable += sum(answer is not None for answer in answers)
        return seconds

    def close(self) -> None:
        """Close the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = self._prompts = None
