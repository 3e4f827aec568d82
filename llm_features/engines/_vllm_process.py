"""How is vLLM's process held from outside: started, talked to, noticed when it dies, ended with all it started?"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.errors import GenerationError

LAST_WORDS = 12
"""Lines of vLLM's log that an error shows."""


class Gone(Exception):
    """The worker's process has ended."""


class Worker:
    """A running vLLM process. Raises GenerationError with the end of its log where it cannot start."""

    def __init__(self, options: Mapping[str, object], env: Mapping[str, str]) -> None:
        descriptor, name = tempfile.mkstemp(prefix="nightshift-vllm-", suffix=".log")
        self._log = Path(name)
        read_requests, write_requests = os.pipe()
        read_answers, write_answers = os.pipe()
        # -P: no folder of the caller's may shadow a module; a session of its own: Ctrl-C is not for it.
        command = [sys.executable, "-P", "-m", "llm_features.engines._vllm_worker", str(read_requests)]
        self._process = subprocess.Popen(
            [*command, str(write_answers)],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            pass_fds=(read_requests, write_answers),
            start_new_session=True,
        )
        for end in (descriptor, read_requests, write_answers):
            os.close(end)
        self._requests = os.fdopen(write_requests, "w", encoding="utf-8")
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Reading on a thread keeps the worker from ever waiting for us, so neither side can block the other.
        self._reader = threading.Thread(target=self._read, args=(read_answers,), daemon=True)
        self._reader.start()
        try:
            self.send([json.dumps(options)])
            (started,) = self.receive()
        except Gone as gone:
            self.close()
            raise GenerationError(f"vLLM cannot start: {gone}") from None
        except BaseException:
            self.close()
            raise
        if "failed" in started:
            words = self._last_words()
            self.close()
            raise GenerationError(f"vLLM cannot start: {started['failed']}\n{words}")

    def send(self, lines: Sequence[str]) -> None:
        """Hand the worker lines. Where it is gone, `receive` says so, after what it still answered."""
        if lines:
            with contextlib.suppress(OSError):
                self._requests.write("\n".join(lines) + "\n")
                self._requests.flush()

    def receive(self) -> list[Any]:
        """Wait for the next message and take all that have come. Raises Gone."""
        lines = [self._answers.get()]
        while not self._answers.empty():
            lines.append(self._answers.get())
        found = [json.loads(line) for line in lines if line is not None]
        if lines[-1] is None:
            if not found:
                raise Gone(self._epitaph())
            self._answers.put(None)  # first what it still said, then that it is gone
        return found

    def close(self) -> None:
        """End the process and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._reader.join()
        self._log.unlink(missing_ok=True)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # a line torn by the end of the process says nothing
                    self._answers.put(line)
        self._answers.put(None)

    def _epitaph(self) -> str:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"vLLM's process died ({how}). The end of its log:\n{self._last_words()}"

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line[:300]}" for line in lines[-LAST_WORDS:])


def environment(*, cpu: bool, local: bool, extra: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: what a person has set wins over our defaults."""
    ours = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if local:
        ours |= {"HF_HUB_OFFLINE": "1"}
    if cpu:
        # Threads that wait without spinning: where anything else runs on a core, spinning is many times slower.
        ours |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    code = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**ours, **os.environ, "PYTHONPATH": path, **extra}
