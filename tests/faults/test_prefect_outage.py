"""A Prefect server that is gone in mid-run (a minute with --full), then a night whose processes are killed."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from flows.cli import ENVIRONMENT
from flows.night import nights
from tests.flows.test_night import tiny
from tests.flows.test_prefect_server import PREFECT, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PATIENCE = 900.0
"""Seconds that anything may take on a machine that is busy with other things."""
ANSWER = (
    "This is a quiet drama with a strong sense of place, and people who look for loud comedies will not like it as "
    "much as those who come back to stories about families and their secrets."
)


class Model(ThreadingHTTPServer):
    """A language model that answers nobody until `free` is set. asked: prompts that came."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.free, self.asked = threading.Event(), 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked may have been killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.free.wait(PATIENCE)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
        self._answer({"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]})

    def _answer(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class House:
    """A Prefect server and `nightshift serve`, both of which can be killed and started again; root: the data root."""

    def __init__(self, folder: Path, model: Model) -> None:
        self.folder, self.model, self.processes = folder, model, ExitStack()
        rule = ["engines.rule.kind=openai", "engines.rule.model=tiny", "models={}"]
        rule.append(f"engines.rule.base_url=http://127.0.0.1:{model.server_port}/v1")
        self.config, run = tiny(folder, users=10)
        self.root = run.store.root
        self.overrides = [part for one in rule for part in ("--set", one)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.api = f"http://127.0.0.1:{self.port}/api"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = environment | ENVIRONMENT | {"PREFECT_HOME": str(folder / "home"), "NO_COLOR": "1"}

    def start_server(self) -> int:
        """Its process id, once it answers."""
        log = self.folder / "server.log"
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", self.port, "--no-ui"]
        server = self.processes.enter_context(running(command, self.environment, log))
        until(lambda: _answers(f"{self.api}/health"), lambda: log.read_text())
        return server.pid

    def start_runner(self) -> int:
        """Its process id, once the server knows what it serves."""
        log = self.folder / "runner.log"
        command = [sys.executable, "-m", "flows.cli", "serve", "-c", str(self.config), *self.overrides]
        environment = self.environment | {"PREFECT_API_URL": self.api, "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
        runner = self.processes.enter_context(running(command, environment, log))
        until(lambda: "nightly/nightly" in log.read_text(), lambda: log.read_text())
        return runner.pid

    def run(self, date: str) -> str:
        """Have the first half of a night run; the id of the run."""
        deployment = httpx.get(f"{self.api}/deployments/name/generate-features/nightly", timeout=60).raise_for_status()
        given = {
            "parameters": {**deployment.json()["parameters"], "logical_date": date},
            "state": {"type": "SCHEDULED"},
        }
        url, made = f"{self.api}/deployments/{deployment.json()['id']}/create_flow_run", []

        def taken() -> bool:  # SQLite is busy now and then: the server answers 503, and its clients try again
            made.append(httpx.post(url, json=given, timeout=60))
            return made[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(taken, self.log)
        return made[-1].raise_for_status().json()["id"]

    def state(self, run: str) -> str:
        return httpx.get(f"{self.api}/flow_runs/{run}", timeout=60).raise_for_status().json()["state_type"]

    def status(self, date: str) -> str | None:
        """How the store says that a night ended."""
        return next((night["status"] for night in nights(self.root) if night["logical_date"] == date), None)

    def log(self) -> str:
        return (self.folder / "runner.log").read_text()[-6000:]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def until(true: Callable[[], bool], said: Callable[[], str]) -> None:
    """Wait until `true()`; where it takes too long, fail with what `said()` says."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            pytest.fail(said())
        time.sleep(0.5)


def kill_with_children(pid: int) -> None:
    """SIGKILL for a process and all that it started."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_with_children(int(child))
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Model() as model:
        threading.Thread(target=model.serve_forever, daemon=True).start()
        house = House(tmp_path, model)
        with house.processes:
            yield house
        model.free.set()
        model.shutdown()


def test_what_dies_in_the_night_stops_no_night(house: House, count: Callable[[int, int], int]) -> None:
    """The server is gone for a while in which the texts get written; then runner and run are killed in the next night:
    the first night completes, and the third runs although the second looks Running for ever."""
    outage = count(15, 60)
    server, runner = house.start_server(), house.start_runner()
    first = house.run("2026-01-01")
    until(lambda: house.model.asked > 0, house.log)
    kill_with_children(server)
    gone = time.monotonic()
    time.sleep(outage / 2)
    assert not _answers(f"{house.api}/health")
    house.model.free.set()
    time.sleep(max(0.0, gone + outage - time.monotonic()))
    house.start_server()
    until(lambda: house.state(first) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), house.log)
    assert house.state(first) == "COMPLETED", house.log()
    assert house.status("2026-01-01") == "completed"

    house.model.free.clear()
    asked = house.model.asked
    for path in (house.root / "texts").glob("*.parquet"):
        path.unlink()  # so that there is something to ask the model again
    second = house.run("2026-01-02")
    until(lambda: house.model.asked > asked, house.log)
    kill_with_children(runner)
    house.model.free.set()
    house.start_runner()
    third = house.run("2026-01-03")
    until(lambda: house.state(third) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), house.log)
    assert house.state(third) == "COMPLETED", house.log()
    assert house.state(second) == "RUNNING"
    assert [house.status(f"2026-01-0{day}") for day in (1, 2, 3)] == ["completed", "died", "completed"]
