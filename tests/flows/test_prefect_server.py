"""Against a real Prefect server, work pool and worker: runs end Completed, once a date, and only one writes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flows.cli import TELEMETRY_OFF
from flows.night import nights
from storage import files
from storage.disk import sha256_file
from storage.lock import WriterLock
from tests.flows.test_night import tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


@dataclass(frozen=True)
class Deployed:
    """A server with the deployments of deploy/prefect.yaml, a worker, and the data root their runs write to."""

    api: str
    environment: dict[str, str]
    root: Path

    def run(self, deployment: str, *options: str) -> dict:
        """Start one run and wait for its end; its record on the server."""
        before = {run["id"] for run in self.flow_runs()}
        prefect(self.environment, "deployment", "run", deployment, "--watch", *options, expect=None)
        mine = [run for run in self.flow_runs() if run["id"] not in before and run["parent_task_run_id"] is None]
        assert len(mine) == 1
        return mine[0]

    def flow_runs(self) -> list[dict]:
        return httpx.post(f"{self.api}/flow_runs/filter", json={}, timeout=30).raise_for_status().json()

    def artifacts(self, run: dict) -> dict[str, dict]:
        wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        found = httpx.post(f"{self.api}/artifacts/filter", json=wanted, timeout=30).raise_for_status().json()
        return {artifact["key"]: artifact for artifact in found}

    def written(self) -> dict[str, str]:
        """Everything in the data root that is not the lock, by its content."""
        paths = [path for path in self.root.rglob("*") if path.is_file() and path.name != "writer.lock"]
        return {str(path.relative_to(self.root)): sha256_file(path) for path in sorted(paths)}


def prefect(environment: dict[str, str], *arguments: str, expect: int | None = 0) -> str:
    done = subprocess.run(
        [*PREFECT, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert expect is None or done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A process of its own group for as long as the context is open."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        for stop in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, stop)
                process.wait(timeout=20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer:\n{log.read_text()}")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("prefect")
    config, run = tiny(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= TELEMETRY_OFF | {"PREFECT_HOME": str(folder / "home"), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    environment |= {"COLUMNS": "200", "NO_COLOR": "1"}
    log = folder / "server.log"
    serve = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with running(serve, environment, log) as server:
        wait_for(f"{api}/health", server, log)
        environment["PREFECT_API_URL"] = api
        text = (ROOT / "deploy" / "prefect.yaml").read_text()
        assert text.count("config: deploy/configs/demo.toml") == 1
        mine = folder / "prefect.yaml"
        mine.write_text(text.replace("deploy/configs/demo.toml", str(config)))
        prefect(environment, "work-pool", "create", "nightshift", "--type", "process")
        prefect(environment, "deploy", "--all", "--prefect-file", str(mine))
        with running([*PREFECT, "worker", "start", "--pool", "nightshift"], environment, folder / "worker.log"):
            yield Deployed(api, environment, run.store.root)


@pytest.fixture(scope="module")
def first(deployed: Deployed) -> dict:
    return deployed.run("generate-features/nightly", "--param", "logical_date=2026-03-01")


def test_a_run_ends_completed_and_shows_its_summary(deployed: Deployed, first: dict) -> None:
    assert (first["state_type"], first["state"]["message"]) == ("COMPLETED", "generate-features of 2026-03-01 is done")
    artifacts = deployed.artifacts(first)
    assert {key: artifact["type"] for key, artifact in artifacts.items()} == {
        "generate-features": "markdown",
        "generate-features-features": "table",
    }
    assert "| item_knowledge | 60 texts wanted: 60 new" in artifacts["generate-features"]["data"]
    assert '"generation.sent": 60' in artifacts["generate-features-features"]["data"]
    for name in ("item_knowledge", "user_preference"):
        assert files.version(deployed.root / "features" / name).number == 1
    assert (deployed.root / "catalog.duckdb").is_file()


def test_a_second_run_of_a_date_does_nothing(deployed: Deployed, first: dict) -> None:
    before = deployed.written()
    again = deployed.run("generate-features/nightly", "--param", "logical_date=2026-03-01")
    assert first["id"] != again["id"]
    assert again["state_type"] == "COMPLETED"
    assert again["state"]["message"] == "2026-03-01 was done before: nothing to do"
    assert deployed.written() == before


def test_a_run_that_finds_another_one_writing_fails_and_writes_nothing(deployed: Deployed, first: dict) -> None:
    before = deployed.written()
    with WriterLock(deployed.root, purpose="the other run"):
        late = deployed.run("generate-features/nightly", "--param", "logical_date=2026-03-02")
    assert late["state_type"] == "FAILED"
    assert "another run is writing to" in late["state"]["message"]
    assert "the other run" in late["state"]["message"]
    assert deployed.written() == before


def test_of_two_runs_at_once_one_works(deployed: Deployed, first: dict) -> None:
    before = {run["id"] for run in deployed.flow_runs()}
    for _ in range(2):
        prefect(
            deployed.environment, "deployment", "run", "generate-features/nightly", "--param", "logical_date=2026-03-03"
        )
    end = time.monotonic() + 120
    while True:
        mine = [run for run in deployed.flow_runs() if run["id"] not in before]
        if all(run["state_type"] in ("COMPLETED", "FAILED", "CANCELLED") for run in mine):
            break
        assert time.monotonic() < end, [run["state"] for run in mine]
        time.sleep(1)
    messages = [run["state"]["message"] or "" for run in mine if run["state_type"] == "COMPLETED"]
    assert len(mine) == 2
    assert messages.count("generate-features of 2026-03-03 is done") == 1
    assert [night["logical_date"] for night in nights(deployed.root)].count("2026-03-03") == 1


def test_the_night_does_only_the_half_that_is_missing(deployed: Deployed, first: dict) -> None:
    night = deployed.run("nightly/nightly", "--param", "logical_date=2026-03-01")
    assert (night["state_type"], night["state"]["message"]) == ("COMPLETED", "nightly of 2026-03-01 is done")
    artifacts = deployed.artifacts(night)
    assert {"nightly", "nightly-features", "nightly-models"} == set(artifacts)
    assert "| deepfm |" in artifacts["nightly"]["data"]
    halves = {run["state"]["message"] for run in deployed.flow_runs() if run["parent_task_run_id"] is not None}
    assert halves == {"2026-03-01 was done before: nothing to do", "train-models of 2026-03-01 is done"}
    assert files.version(deployed.root / "recommendations").number == 1


def test_without_a_date_a_run_belongs_to_the_day_it_was_scheduled_for(deployed: Deployed, first: dict) -> None:
    run = deployed.run("train-models/nightly")
    date = run["expected_start_time"][:10]
    message = run["state"]["message"]
    assert (run["state_type"], message) == ("COMPLETED", f"train-models of {date} is done")
    assert (date, "train-models") in {(night["logical_date"], night["job"]) for night in nights(deployed.root)}
