"""Request times: every arm gets the same requests, every number is accounted for, no LLM library serves stored text."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from flows import learning, steps
from flows.cli import app
from flows.config import load_config
from flows.night import run_night
from flows.studies.latency import study
from flows.studies.latency.arms import Served
from flows.studies.latency.costs import COSTS, costs
from flows.studies.latency.study import Study, language_models
from flows.studies.latency.tables import RESULTS, TIMINGS, results
from flows.studies.page import latency as page
from llm_features import engines
from llm_features.engines import Completion, Request
from storage.catalog import query
from storage.errors import ConfigError, GenerationError, StoreError
from storage.inspect import inspect
from tests.flows.test_night import tiny
from tests.flows.test_study_page import Outline

LLM = ('engines.llm={kind="openai", model="m"}', "latency.candidates=[1, 4, 1000]", "latency.llm_candidates=[1, 4]")
FEW = ("latency.requests=4", "latency.llm_requests=2", "latency.cold_starts=2")


class Yes(engines.Engine):
    """A language model that likes everything, until it has been asked `patience` times."""

    identity = {"engine": "yes"}  # noqa: RUF012

    def __init__(self, patience: int = 10**6) -> None:
        self.patience, self.sizes = patience, list[int]()

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        self.sizes.append(len(requests))
        assert in_flight == len(requests)
        if len(self.sizes) > self.patience:
            raise GenerationError("the server is gone\nand says more")
        yield from (Completion(request.key, " Yes", "stop") for request in reversed(requests))


class Noted(Served):
    """A run that is not started, and notes what it was asked."""

    asked: list[tuple[str, str, tuple[str, ...]]]

    def start(self) -> None:
        self.asked = [*getattr(self, "asked", []), ("start", "", ())]

    def rank(self, user_id: str, item_ids: Sequence[str]) -> float:
        self.asked.append(("rank", user_id, tuple(item_ids)))
        return len(item_ids) / 1000

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML file of a run whose night is recorded and whose models are trained."""
    path, config = tiny(tmp_path_factory.mktemp("world"))

    def work() -> dict:
        steps.ingest(config)
        return {"features": [steps.generate(config, name) for name in config.features]}

    run_night(config.store.root, "generate-features", None, work, then=lambda: None)
    learning.train(config)
    return path


@pytest.fixture
def noted(world: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a study whose runs are only noted and whose LLM is the engine given."""
    monkeypatch.setattr(study, "Served", Noted)

    def make(engine: engines.Engine | None, *overrides: str) -> Study:
        monkeypatch.setattr(steps, "open_engine", lambda config, name: engine)
        return Study(load_config(world, [*FEW, *(LLM if engine else ()), *overrides]))

    return make


def test_every_arm_answers_the_same_requests(noted: Any) -> None:
    engine = Yes()
    done = noted(engine)
    said = done.run()
    timings = pl.read_parquet(Path(said["page"]).with_name("timings.parquet"))
    found = pl.DataFrame(said["results"], schema=RESULTS)
    without, with_text = (one.asked for one in done.served)
    warm = [[one for one in asked[-4 * 3 :] if one[0] == "rank"] for asked in (without, with_text)]

    assert dict(timings.schema) == TIMINGS
    assert said["candidates"] == [1, 4, 60]  # the catalogue holds 60 items
    assert sorted(warm[0]) == sorted(warm[1])
    assert {len(items) for _, _, items in warm[0]} == {1, 4, 60}
    assert all(len(set(items)) == len(items) for _, _, items in warm[0])
    assert len({user for _, user, _ in warm[0]}) == 4
    per_arm = found.filter(pl.col("arm") != "llm").group_by("arm", "cache").agg(pl.col("requests").sum())
    assert sorted(per_arm.iter_rows()) == [
        *(("with", "cold", 2 * 3), ("with", "warm", 4 * 3), ("without", "cold", 2 * 3), ("without", "warm", 4 * 3))
    ]
    assert found.filter(arm="llm", cache="warm")["requests"].to_list() == [2, 2, 0]
    assert found.filter(arm="llm", candidates=60)["not_measured"].to_list() == ["not among latency.llm_candidates"] * 2
    assert found.filter(arm="with", candidates=60, cache="warm")["p50_ms"].item() == pytest.approx(60)
    assert sorted(engine.sizes) == [1] * (1 + 2) + [4] * (1 + 2 + 2)  # cold, warm, and two to warm up
    assert [one[0] for one in without].count("start") == 2 * 3 + 1


def test_what_was_asked_is_the_same_again(noted: Any) -> None:
    first, second = noted(Yes()), noted(Yes())
    first.run()
    second.run()

    assert first.served[0].asked == second.served[0].asked
    assert noted(Yes(), "latency.seed=1").run()
    assert len(first.served[0].asked) > 6


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (None, "the run has no engine that is a language model (kind vllm or openai)"),
        (Yes(patience=0), "the server is gone"),
    ],
)
def test_an_llm_that_is_not_there_is_a_row_with_a_reason(noted: Any, engine: Yes | None, reason: str) -> None:
    said = noted(engine).run()
    found = pl.DataFrame(said["results"], schema=RESULTS).filter(arm="llm")

    assert set(found["not_measured"]) == {reason}
    assert found["requests"].sum() == 0
    assert reason in Outline(Path(said["page"]).read_text()).words


def test_an_llm_that_fails_later_keeps_what_was_measured(noted: Any) -> None:
    found = pl.DataFrame(noted(Yes(patience=2)).run()["results"], schema=RESULTS).filter(arm="llm")

    assert found.filter(cache="cold", candidates=1)["requests"].item() == 1
    assert set(found.filter(cache="warm")["not_measured"]) == {"the server is gone"}


@pytest.mark.slow
def test_the_command_serves_runs_in_processes_without_llm_libraries(world: Path) -> None:
    told = ["latency.candidates=[1, 60]", "latency.requests=3", "latency.cold_starts=1"]
    options = [part for line in told for part in ("--set", line)]
    printed = CliRunner().invoke(app, ["study", "latency", "--config", str(world), *options])
    lines = printed.output.splitlines()
    root = load_config(world).store.root
    where = Path(lines[-1].removeprefix("The page: "))

    assert printed.exit_code == 0, printed.output
    assert where.name == "report.html"
    assert "<dt>LLM libraries in the processes that served models</dt><dd>none</dd>" in where.read_text()
    assert lines[0].startswith("deepfm without, cold, 1 candidates: p50 ")
    said = query(root, "SELECT arm, cache, count(*) AS n FROM study_latency WHERE p50_ms > 0 GROUP BY ALL ORDER BY ALL")
    assert said.rows() == [(arm, cache, 2) for arm in ("with", "without") for cache in ("cold", "warm")]
    assert query(root, "SELECT count(*) AS n FROM study_latency_timings")["n"].item() == 2 * 2 * (1 + 3)
    assert query(root, "SELECT feature_set FROM study_latency_costs ORDER BY 1")["feature_set"].to_list() == [
        "item_knowledge",
        "user_preference",
    ]
    assert inspect(root)[1] == []


def test_a_process_that_dies_says_its_last_words(tmp_path: Path) -> None:
    served = Served(tmp_path, "nothing", model="nothing", arm="with")
    served.start()
    with contextlib.closing(served), pytest.raises(StoreError, match=r"has ended: .*no version"):
        served.rank("u", ["i"])


def test_costs_are_those_of_the_caches_and_the_nights(world: Path) -> None:
    root = load_config(world).store.root
    found = costs(root)
    items = found.filter(feature_set="item_knowledge").row(0, named=True)
    size = sum(path.stat().st_size for path in (root / "features" / "item_knowledge" / "v000001").glob("*.parquet"))

    assert dict(found.schema) == COSTS
    assert (items["entity"], items["entities"], items["texts"]) == ("item", 60, 60)
    assert (items["prompt_tokens"], items["output_tokens"]) == (0, 0)  # a rule wrote them
    assert (items["bytes"], items["vector_bytes"]) == (size, 4 * 32)
    assert items["seconds_per_entity"] == pytest.approx((items["generate_seconds"] + items["encode_seconds"]) / 60)
    assert found.filter(feature_set="user_preference")["bytes_per_entity"].item() > 0


def test_percentiles_lie_between_order_statistics() -> None:
    rows = [("m", "with", "warm", 10, place, float(place)) for place in range(101)]
    found = results(pl.DataFrame(rows, schema=TIMINGS, orient="row"), [10], "llm", "gone")

    assert found.filter(arm="with").select("requests", "p50_ms", "p99_ms").row(0) == (101, 50.0, 99.0)
    assert found.filter(arm="llm").select("cache", "not_measured").rows() == [("cold", "gone"), ("warm", "gone")]


def test_the_page_says_how_many_times_longer() -> None:
    rows = [
        *(
            ("din", arm, "warm", n, 9, ms * n, 2 * ms * n, None)
            for n in (1, 100)
            for arm, ms in (("without", 2.0), ("with", 3.0))
        ),
        *(("small", "llm", "warm", n, 2, 600.0 * n, 700.0 * n, None) for n in (1,)),
    ]
    text = page.render(
        {"results": pl.DataFrame(rows, schema=RESULTS, orient="row"), "costs": pl.DataFrame(schema=COSTS)},
        {"title": "Times", "lead": "How long?"},
    )
    words = Outline(text).words

    assert "1.5×" in words
    assert "din with stored vectors: 300 ms over 200 ms without text, p50, 100 candidates, warm" in words
    assert "200×" in words
    assert "asking small directly: 600 ms over 3 ms of din, p50, 1 candidate, warm" in words


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('latency.models=["din"]', r"\[models\] has: deepfm"),
        ('latency.engine="gpt"', r"\[engines\] has: rule"),
        ("latency.candidates=[0]", "greater than 0"),
        ("latency.candidates=[]", "at least 1"),
        ("latency.request=3", "unknown key"),
    ],
)
def test_a_wrong_section_is_refused_before_it_starts(world: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(world, [line])


def test_models_must_be_trained_in_both_arms(world: Path) -> None:
    config = load_config(world, ['models.fm={kind="fm"}', 'latency.models=["fm"]'])
    with pytest.raises(StoreError, match=r"fm\.without has no version"):
        Study(config)


def test_only_language_models_are_asked(world: Path) -> None:
    assert language_models(load_config(world)) == []
    assert language_models(load_config(world, LLM)) == ["llm"]
