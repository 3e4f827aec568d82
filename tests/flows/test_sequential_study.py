"""A study ends in a table and claims, goes on where it was stopped, and does nothing twice."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from ctr_models.sequential import runs
from flows.cli import app
from flows.config import RunConfig, load_config
from flows.studies.sequential import making, study
from flows.studies.sequential.estimate import estimate
from flows.studies.sequential.tables import claim_line
from flows.upkeep import forget
from storage import files
from storage.catalog import query
from storage.errors import ConfigError
from storage.features import publish_features
from storage.ingest import Ingested, publish_dataset
from storage.inspect import inspect
from storage.interactions import Dataset
from storage.schema import EARLIEST, FEATURES, INTERACTIONS, QUARANTINE, REJECTED

TOML = """
[store]
root = "{root}"
[dataset]
source = "movielens"
path = "."
[engines.rule]
kind = "template"
[features.title]
prompt = "item_knowledge"
engine = "rule"
[encoder]
kind = "hashing"
[split]
kind = "ratio"
[sequential]
seeds = [0, 1]
cold_at_most = 2
resamples = 100
[sequential.split]
kind = "sessions"
[sequential.train]
max_length = 8
epochs = 2
threads = 1
[sequential.models.sasrec]
kind = "sasrec"
width = 8
[sequential.arms.text]
item_init = {{ feature_set = "title" }}
[sequential.arms.text_permuted]
item_init = {{ feature_set = "title" }}
vectors = "permuted"
[sequential.arms.shuffled]
histories = "shuffled"
[sequential.baselines.popular]
kind = "most_popular"
[sequential.baselines.similar]
kind = "llm_seq_sim"
feature_set = "title"
[sequential.hybrids.both]
kind = "switch"
popular = "sasrec"
rare = "similar"
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A configured study over 40 users and 20 items with vectors."""
    random = np.random.default_rng(0)
    root = tmp_path / "root"
    rows = pl.DataFrame(
        [(f"u{u}", f"i{random.integers(18)}", None, 100 * u + n, 10 * u + n) for u in range(40) for n in range(6)],
        schema=INTERACTIONS,
        orient="row",
    ).unique(["user_id", "item_id"], keep="first")
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(20)], "title": [f"Title {n}" for n in range(20)]})
    users, nothing_bad = rows.select("user_id").unique().sort("user_id"), pl.DataFrame(schema=QUARANTINE)
    dataset = Dataset("planted", "general", "time", rows, users, items)
    publish_dataset(root, Ingested(dataset, nothing_bad, len(rows), "data", {}, ()))
    vectors = random.normal(size=(19, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = [(f"i{n}", EARLIEST, 0, 0, f"s{n}", f"k{n}", f"h{n}", f"text {n}", 2, False) for n in range(19)]
    publish_features(
        root,
        "title",
        entity="item",
        rows=pl.DataFrame(facts, schema=FEATURES, orient="row"),
        rejected=pl.DataFrame(schema=REJECTED),
        vectors=pl.DataFrame({"text_hash": [f"h{n}" for n in range(19)]}).with_columns(
            vector=pl.Series(vectors.astype(np.float32), dtype=pl.Array(pl.Float32, 12))
        ),
        encoder="test encoder",
        lineage={},
    )
    path = tmp_path / "study.toml"
    path.write_text(TOML.format(root=root))
    return load_config(path)


def test_a_study_is_done_once_and_goes_on_where_it_was_stopped(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = making.fit

    def stopped(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        study.sequential(config)
    first = study.sequential(config)
    again = study.sequential(config)

    assert len(calls) == 8 + 1  # four arms, two seeds, and the one that was stopped
    assert (first["parts"], first["computed"]) == (2 + 8 + 2, 12 - 5)
    assert (again["computed"], again["results"], again["claims"]) == (0, first["results"], first["claims"])

    results = pl.read_parquet(first["results"])
    assert set(results["arm"]) == {"", "base", "text", "text_permuted", "shuffled"}
    assert set(results["slice"]) == {"all", "cold_items", "warm_items", "tail_items"}
    assert results.filter(slice="all")["queries"].unique().to_list() == [8]
    assert results.filter(model="both").height == results.filter(model="sasrec", arm="base").height

    claims = {(c["better"], c["worse"]) for c in first["claims"]}
    assert claims == {("text", "base"), ("text", "text_permuted"), ("text_permuted", "base"), ("base", "shuffled")}
    assert claim_line(first["claims"][0]).startswith("sasrec: text beats base in ndcg@20: ")

    root = config.store.root
    printed = CliRunner().invoke(app, ["study", "sequential", "--config", str(tmp_path / "study.toml")])
    lines = printed.output.splitlines()
    assert lines[:-3] == [claim_line(claim) for claim in first["claims"]]
    assert lines[-3] == "options as configured, not tuned, in every arm"
    assert lines[-2].startswith("12 parts, 0 of them computed now, in ")
    assert lines[-1] == f"The page: {first['page']}"
    report = Path(first["page"]).read_text()
    assert all(f"<dt>{name}</dt>" in report for name in ("Dataset", "Split", "Seeds", "Tuning"))
    assert report.count("untuned: every model has the options as configured") == 2  # what a reader must know first
    assert f">sasrec, {first['claims'][0]['metric']}<" in report
    said = query(root, "SELECT count(*) AS n FROM study_sequential_claims WHERE verdict IS NOT NULL")
    assert said["n"].item() == len(first["claims"])


TUNED = """
[sequential.tuning]
trials = 3
[sequential.tuning.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
dropout = [0.0, 0.2]
[[sequential.sampled]]
negatives = 5
[[sequential.sampled]]
negatives = 5
drawn = "popularity"
"""


def test_every_arm_is_tuned_by_the_same_budget_and_only_once(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(path.read_text() + TUNED)
    assert config.sequential is not None
    calls: list[int] = []
    real = making.fit

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "fit", counted)
    tuned = load_config(path, ["sequential.arms={}", "sequential.hybrids={}", "sequential.seeds=[0]"])
    with_text = load_config(path, ["sequential.seeds=[0]"])
    first = study.sequential(tuned)
    assert len(calls) == 3  # the best trial is the model of its seed
    with pytest.raises(KeyboardInterrupt):
        study.sequential(with_text)
    again = study.sequential(tuned)

    root = config.store.root
    chosen = pl.read_parquet(Path(first["results"]).with_name("tuning.parquet")).filter("chosen")["trial"].item()
    weights = [
        (files.version(runs.folder(root, f"sasrec.base.{name}")).path / "weights.safetensors").read_bytes()
        for name in (f"trial-{chosen}", "0")
    ]
    assert weights[0] == weights[1]
    table = pl.read_parquet(Path(first["results"]).with_name("tuning.parquet"))
    assert (again["computed"], again["results"]) == (0, first["results"])
    report = Path(first["page"]).read_text()
    assert "untuned" not in report
    assert "3 trials for each model and arm" in report
    assert table["trial"].to_list() == [0, 1, 2]
    assert table["options"][0] == '{"learning_rate": 0.001, "dropout": 0.2}'  # as configured
    assert table.filter("chosen")["validation"].item() == table["validation"].max()
    part = files.version(root / "study_parts" / "sequential.sasrec.base.0").meta["tuned"]
    assert part == {"trials": 3, "options": json.loads(table.filter("chosen")["options"].item())}
    longer = load_config(path, ["sequential.arms={}", "sequential.hybrids={}", "sequential.tuning.trials=4"])
    more = pl.read_parquet(Path(study.sequential(longer)["results"]).with_name("tuning.parquet"))
    assert more[:3]["options"].equals(table["options"])
    assert len(calls) == 4 + 1 + 1  # a trial, and the second seed

    results = pl.read_parquet(first["results"])
    names = {
        f"sampled@5 {drawn} {metric}@{k}"
        for drawn in ("uniform", "popularity")
        for metric in ("hr", "ndcg", "mrr")
        for k in (10, 20)
    }
    assert names < set(results["metric"])
    sampled = results.filter(slice="all", metric="sampled@5 uniform hr@10")["value"]
    assert set(sampled) == {1.0}  # of six items each is among the first ten


def test_a_dry_run_counts_what_is_stored_and_writes_nothing(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    root, untuned = config.store.root, load_config(path, ["sequential.arms={}"])
    path.write_text(path.read_text() + TUNED)
    tuned = load_config(path, ["sequential.arms={}", "sequential.sampled=[]"])
    before = sorted(root.rglob("*"))
    nothing = estimate(tuned)

    assert (nothing["parts"], nothing["parts_stored"], nothing["trials"], nothing["trials_stored"]) == (6, 0, 3, 0)
    assert nothing["minutes"][0] is None
    assert nothing["minutes"][1] >= 0
    assert set(nothing["seconds_per_epoch"]) == {"sasrec"}
    assert sorted(root.rglob("*")) == before
    study.sequential(untuned)
    assert estimate(untuned)["parts_stored"] == 6
    assert estimate(tuned)["parts_stored"] == 2  # the baselines: what the search will choose is not known
    printed = CliRunner().invoke(app, ["study", "sequential", "-c", str(path), "--dry-run"]).output
    assert "12 parts, " in printed
    assert "12 trials of options, " in printed
    assert "nothing was written" in printed
    study.sequential(tuned)
    done = estimate(tuned)
    assert (done["parts_stored"], done["trials_stored"], done["minutes"]) == (6, 3, [0.0, 0.0])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sequential.tuning.space.depth=[1, 2]", "has no option 'depth' to tune"),
        ("sequential.tuning.space.width=[16, 32]", "must hold 8, as model 'sasrec' is configured"),
        ("sequential.tuning.models.bert.width=[8]", "tuning.models names 'bert'; there are: sasrec"),
        ("sequential.tuning.space={}", "no option to choose"),
        ('sequential.sampled=[{drawn="all"}]', "uniform"),
    ],
)
def test_a_wrong_search_is_refused_before_it_starts(config: RunConfig, tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(path.read_text() + TUNED)
    with pytest.raises(ConfigError, match=says):
        load_config(path, [line])


def test_another_data_set_or_configuration_is_computed_again(config: RunConfig) -> None:
    assert config.sequential is not None
    only = config.sequential.model_copy(update={"models": {}, "arms": {}, "hybrids": {}})
    run = config.model_copy(update={"sequential": only})
    assert study.sequential(run)["computed"] == 2
    section = only.baselines["similar"]
    changed = section.model_copy(update={"options": section.options.model_copy(update={"weighting": "last"})})
    baselines = {**only.baselines, "similar": changed}
    other = run.model_copy(update={"sequential": only.model_copy(update={"baselines": baselines})})

    assert study.sequential(other)["computed"] == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('sequential.hybrids.both.rare="nobody"', "made of 'nobody'"),
        ('sequential.arms.base.histories="shuffled"', "always there"),
        ('sequential.baselines.popular.feature_set="title"', "reads no"),
        ('sequential.arms.text.item_init.feature_set="none"', r"\[features\] has: title"),
        ('sequential.arms.shuffled.vectors="random"', "needs an item_init"),
        ('sequential.models.sasrec.kind="sas"', "there are: bert4rec"),
        ('sequential.train.loss.kind="bce"', "gbce"),
    ],
)
def test_a_wrong_study_is_refused_before_it_starts(config: RunConfig, tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(tmp_path / "study.toml", [line])


def test_a_run_without_a_study_has_nothing_to_study(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="no section"):
        study.sequential(config.model_copy(update={"sequential": None}))


def test_a_study_is_verified_and_forgets_a_person(config: RunConfig) -> None:
    study.sequential(config)
    root = config.store.root
    part = next((root / "study_parts").rglob("ranks.parquet"))
    files, problems = inspect(root)
    part.write_bytes(part.read_bytes()[:-1])

    assert files > 10
    assert [problem for problem in problems if "/features/title/" not in problem] == []  # its hashes are made up
    assert any(str(part) in problem for problem in inspect(root)[1])
    assert forget(config, "u3")["traces"] == []
    assert not list((root / "study_parts").rglob("ranks.parquet"))


@pytest.mark.parametrize("table", ["models", "arms", "baselines", "hybrids"])
def test_no_name_leads_out_of_the_data_root(table: str, config: RunConfig, tmp_path: Path) -> None:
    text = TOML.format(root=config.store.root)
    named = next(line for line in text.splitlines() if line.startswith(f"[sequential.{table}."))
    text = text.replace(named, f'[sequential.{table}."../../evil"]')
    for part in ('"sasrec"\nrare', '"similar"'):  # the hybrid goes on naming what it is made of
        if table == ("models" if "sasrec" in part else "baselines"):
            text = text.replace(f"= {part}", "= " + part.replace(part.split('"')[1], "../../evil"))
    (tmp_path / "evil.toml").write_text(text)

    with pytest.raises(ConfigError, match="cannot name anything stored"):
        load_config(tmp_path / "evil.toml")
