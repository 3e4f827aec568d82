"""The Prefect side without a server: what is deployed, which date a run belongs to, what is retried and logged."""

import inspect
import logging
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

from flows import generate_features, nightly, scheduled, train_models
from flows.cli import ENVIRONMENT, TELEMETRY_OFF
from flows.config import load_config
from flows.serve import deployments, serve_all
from storage.errors import ConfigError, GenerationError, StoreError

ROOT = Path(__file__).resolve().parents[2]
MODULES = (generate_features, train_models, nightly)
FLOWS = {"nightly": nightly, "generate-features": generate_features, "train-models": train_models}
TASKS = {
    f"{module.__name__}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Task)
}


@pytest.fixture(scope="module")
def prefect_yaml() -> dict:
    return yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())


def flow_of(module: object) -> Flow:
    return next(value for value in vars(module).values() if isinstance(value, Flow) and value.name in FLOWS)


def test_prefect_yaml_names_the_three_deployments(prefect_yaml: dict) -> None:
    deployed = prefect_yaml["deployments"]
    assert [f"{d['flow_name']}/{d['name']}" for d in deployed] == [f"{name}/nightly" for name in FLOWS]
    for deployment in deployed:
        path, _, function = deployment["entrypoint"].partition(":")
        flow = getattr(FLOWS[deployment["flow_name"]], function)
        assert ROOT / path == Path(inspect.getfile(flow.fn))
        assert flow.name == deployment["flow_name"]
        flow.validate_parameters(deployment["parameters"])
        assert (ROOT / deployment["parameters"]["config"]).is_file()
        assert deployment["work_pool"]["name"] == "nightshift"
        assert "concurrency_limit" not in deployment


def test_one_schedule_is_on_and_every_one_has_a_time_zone(prefect_yaml: dict) -> None:
    schedules = [(d["flow_name"], schedule) for d in prefect_yaml["deployments"] for schedule in d["schedules"]]
    assert len(schedules) == 3
    assert all(schedule["cron"] and schedule["timezone"] for _, schedule in schedules)
    assert [name for name, schedule in schedules if schedule["active"]] == ["nightly"]


def test_nobody_is_told_that_a_run_runs(prefect_yaml: dict) -> None:
    for deployment in prefect_yaml["deployments"]:
        assert TELEMETRY_OFF.items() <= deployment["work_pool"]["job_variables"]["env"].items()
    wanted = {f"{name}={value}" for name, value in TELEMETRY_OFF.items() if name != "TOKENIZERS_PARALLELISM"}
    for path in (ROOT / "deploy" / "docker").glob("*.Dockerfile"):
        assert not [line for line in wanted if line not in path.read_text()], path.name


def test_serve_offers_the_same_deployments() -> None:
    served = deployments("run.toml", ["a.b=1"], cron="30 3 * * *", timezone="Europe/Berlin")
    assert sorted(f"{d.flow_name}/{d.name}" for d in served) == sorted(f"{name}/nightly" for name in FLOWS)
    for deployment in served:
        assert deployment.parameters == {"config": "run.toml", "overrides": ["a.b=1"]}
        assert deployment.concurrency_limit is None
        schedules = [(s.schedule.cron, s.schedule.timezone) for s in deployment.schedules or []]
        assert schedules == ([("30 3 * * *", "Europe/Berlin")] if deployment.flow_name == "nightly" else [])


@pytest.mark.parametrize(
    ("url", "cron", "said"),
    [(None, "0 2 * * *", "needs a Prefect server"), ("http://127.0.0.1:1/api", "every night", "schedule.cron")],
)
def test_serve_says_what_is_missing(url: str | None, cron: str, said: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ConfigError, match=said):
        serve_all("run.toml", [], cron=cron, timezone="UTC")


def test_a_wrong_time_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.timezone.*'Mars/Base' is no time zone"):
        load_config(ROOT / "deploy" / "configs" / "demo.toml", ["schedule.timezone=Mars/Base"])


@pytest.mark.parametrize(
    ("scheduled_for", "zone", "date"),
    [
        ("2026-11-21T02:00:00+00:00", "UTC", "2026-11-21"),
        ("2026-11-21T01:00:00+00:00", "Europe/Berlin", "2026-11-21"),  # 02:00 there
        ("2026-06-30T22:30:00+00:00", "Europe/Berlin", "2026-07-01"),  # 00:30 in summer
        ("2026-11-21T02:00:00+00:00", "America/New_York", "2026-11-20"),  # 21:00 the evening before
    ],
)
def test_the_logical_date_is_the_scheduled_day_where_the_schedule_lives(
    monkeypatch: pytest.MonkeyPatch, scheduled_for: str, zone: str, date: str
) -> None:
    monkeypatch.setattr(scheduled, "deployment", SimpleNamespace(id="some deployment"))
    start = datetime.fromisoformat(scheduled_for)
    monkeypatch.setattr(scheduled, "flow_run", SimpleNamespace(scheduled_start_time=start))
    assert scheduled.logical_date(None, zone) == date
    assert scheduled.logical_date("2020-01-01", zone) == "2020-01-01"


def test_a_run_by_hand_belongs_to_its_own_second() -> None:
    assert scheduled.logical_date(None, "UTC").endswith("Z")
    assert scheduled.logical_date("2020-01-01", "UTC") == "2020-01-01"


def test_nothing_of_a_task_is_cached_or_kept_by_prefect() -> None:
    assert len({id(task) for task in TASKS.values()}) == 6
    for name, task in TASKS.items():
        assert task.cache_policy == NO_CACHE, name
        assert task.persist_result is False, name
        kinds = {parameter.annotation for parameter in inspect.signature(task.fn).parameters.values()}
        assert kinds <= {str, list[str]}, f"{name} takes more than paths and names"


@pytest.mark.parametrize(
    ("error", "again"), [(GenerationError("down"), True), (ConfigError("typo"), False), (StoreError("full"), False)]
)
def test_only_an_engine_gets_a_second_try(error: Exception, *, again: bool) -> None:
    condition = generate_features.generate.retry_condition_fn
    assert condition is not None
    assert condition(generate_features.generate, None, Failed(data=error)) is again  # type: ignore[arg-type]
    assert [name for name, task in TASKS.items() if task.retries] == ["flows.generate_features.generate"]


@pytest.mark.parametrize(("error", "kept"), [(ConfigError("typo"), False), (KeyError("a bug"), True)])
def test_what_is_said_on_purpose_is_logged_without_a_traceback(error: Exception, *, kept: bool) -> None:
    scheduled.plain_errors()
    scheduled.plain_errors()
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        assert len([f for f in logger.filters if getattr(f, "__module__", "") == scheduled.__name__]) == 1
        try:
            raise error
        except Exception:
            record = logger.makeRecord(name, logging.ERROR, "", 0, "said", (), sys.exc_info())
        assert logger.filter(record)
        assert (record.exc_info is not None) is kept


def test_a_night_is_done_although_nobody_can_be_shown_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*args: object, **options: object) -> None:
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(scheduled, "create_markdown_artifact", gone)
    monkeypatch.setattr(scheduled, "as_markdown", str)
    state = scheduled.finished("nightly", "2026-01-01", {"features": [{"a": 1}]})
    assert (state.is_completed(), state.message) == (True, "nightly of 2026-01-01 is done")
    assert "the summary of 2026-01-01 is not shown as an artifact: All connection attempts failed" in caplog.text


def test_runs_have_patience_with_their_server(prefect_yaml: dict) -> None:
    """Minutes of it, whichever way they are started."""
    tries = int(ENVIRONMENT["PREFECT_CLIENT_MAX_RETRIES"])
    assert sum(2**n for n in range(1, tries + 1)) > 300
    for deployment in prefect_yaml["deployments"]:
        given = deployment["work_pool"]["job_variables"]["env"]
        assert {name: given.get(name) for name in ENVIRONMENT} == ENVIRONMENT


def test_nested_summaries_become_rows_of_a_table() -> None:
    assert scheduled._flat({"a": 1, "b": {"c": 2, "d": {"e": "x"}}}) == {"a": 1, "b.c": 2, "b.d.e": "x"}
