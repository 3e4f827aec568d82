"""A night that trains what finds candidates: once, stored, used, verified, audited, and without an LLM in sight."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from ctr_models.sequential import runs
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.retriever import Retriever
from ctr_models.sequential.sequences import sequences
from ctr_models.sequential.text import item_vectors
from flows import learning, recommending, retrieving, steps, upkeep
from flows.audit import audit
from flows.audits import Audited
from flows.audits.retrieval import reduction_of_everything, retriever_of_everything
from flows.cli import app
from flows.config import RunConfig, load_config
from flows.summary import as_markdown
from flows.verify import verify
from llm_features.build import prompts_cache
from storage import files
from storage.catalog import query
from storage.errors import ConfigError, StoreError
from storage.ingest import load_dataset
from tests.flows.test_night import TINY

NEXT = """
[retrievers.next]
kind = "gru4rec"
width = 8
item_init = {{ feature_set = "item_knowledge" }}
[retrievers.next.train]
epochs = 2
max_length = 10
threads = 1
"""


def written(folder: Path, *overrides: str) -> tuple[Path, RunConfig]:
    path = folder / "next.toml"
    text = TINY.replace("[recommend]", '[recommend]\nretrieval = "next"') + NEXT
    path.write_text(text.format(root=folder / "store", users=40))
    return path, load_config(path, ["train.epochs=1", *overrides])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig, dict]:
    """A store after a night with a retriever, and what the night said."""
    path, config = written(tmp_path_factory.mktemp("night"))
    steps.ingest(config)
    for name in config.features:
        steps.generate(config, name)
    learning.train(config)
    summary = retrieving.train_retrievers(config) | recommending.recommend_all(config)
    return path, config, summary | steps.publish_catalog(config)


def test_a_retriever_is_trained_once(made: tuple[Path, RunConfig, dict]) -> None:
    _, config, summary = made
    (first,) = summary["retrievers"]
    (again,) = retrieving.train_retrievers(config)["retrievers"]
    section = config.retrievers["next"]
    more_threads = section.model_copy(update={"train": section.train.model_copy(update={"threads": 2})})

    assert (first["trained"], first["version"], first["model"]) == (True, 1, "gru4rec")
    assert again == {**first, "trained": False, "seconds": again["seconds"]}
    assert first["test"]["all"]["queries"] > 10
    assert 0 <= first["test"]["all"]["hr@10"] <= first["test"]["all"]["hr@150"] <= 1
    threads = config.model_copy(update={"retrievers": {"next": more_threads}})
    assert not retrieving.train_retrievers(threads)["retrievers"][0]["trained"]
    assert retrieving.train_retrievers(config.model_copy(update={"retrievers": {}})) == {}


def test_another_configuration_is_trained_again_and_stored_recommendations_follow(tmp_path: Path) -> None:
    config = written(tmp_path)[1]
    steps.ingest(config)
    steps.generate(config, "item_knowledge")
    learning.train(config)
    versions = []
    for overrides in ([], ["retrievers.next.width=4"], ["recommend.retrieval=similarity"]):
        config = written(tmp_path, *overrides)[1]
        trained = retrieving.train_retrievers(config)["retrievers"][0]
        stored = recommending.recommend_all(config)["recommendations"]["version"]
        retrieval = files.version(config.store.root / "recommendations").meta["retrieval"]
        versions.append((trained["trained"], trained["version"], stored, retrieval))

    assert versions[:2] == [(True, 1, 1, "next v1"), (True, 2, 2, "next v2")]
    assert versions[2][2:] == (3, "similarity")


def test_it_is_in_the_summary_and_in_sql(made: tuple[Path, RunConfig, dict]) -> None:
    _, config, summary = made

    assert "| next | gru4rec, trained in " in as_markdown(summary)
    assert "HR@150 " in as_markdown(summary)
    rows = query(config.store.root, "SELECT family, name, model FROM runs ORDER BY family, name")
    assert rows.rows()[-1] == ("sequential", "next", "gru4rec")
    assert set(rows["family"]) == {"ctr", "sequential"}


def test_recommendations_come_from_what_it_finds(made: tuple[Path, RunConfig, dict]) -> None:
    """Everybody's stored items are popular ones or candidates of the retriever, and unseen."""
    _, config, _ = made
    root = config.store.root
    stored = query(root, "SELECT user_id, item_id FROM recommendations")
    dataset = load_dataset(root)
    likes = dataset.interactions.group_by("item_id").agg((pl.col("rating") > 3).sum().alias("likes"), pl.len())
    popular = likes.sort("likes", "len", descending=True)["item_id"][:50]
    feature = learning.snapshot(config).features["item_knowledge"]
    retriever = Retriever(runs.load_run(root, "next"), dataset.items["item_id"], feature)
    found = retriever.candidates(dataset.interactions.filter(user_id="u00001")["item_id"].to_list(), 150)

    assert set(stored["user_id"]) == set(dataset.users["user_id"])
    assert len(dataset.interactions.join(stored, on=["user_id", "item_id"])) == 0
    assert set(stored.filter(user_id="u00001")["item_id"]) <= set(found) | set(popular)


def test_a_person_asks_for_recommendations_without_an_llm(made: tuple[Path, RunConfig, dict]) -> None:
    """A fresh interpreter retrieves by the sequential model and ranks by the CTR model; strangers get what is liked."""
    path, _, _ = made
    code = f"""
import sys
from flows.config import load_config
from flows.recommending import recommend_one
config = load_config({str(path)!r})
print(len(recommend_one(config, "u00001", k=3)["items"]), len(recommend_one(config, "nobody", k=3)["items"]))
print([name for name in ("vllm", "transformers", "sentence_transformers", "prefect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["3 3", "[]"]


def test_new_items_with_a_text_are_found(made: tuple[Path, RunConfig, dict]) -> None:
    """The world's late items are in no training row; the stored run finds them by their text."""
    _, config, _ = made
    run = runs.load_run(config.store.root, "next")
    feature = learning.snapshot(config).features["item_knowledge"]
    catalogue = load_dataset(config.store.root).items["item_id"]
    cold = set(catalogue) - set(run.items)
    found = Retriever(run, catalogue, feature).candidates([run.items[1]], 60)

    assert cold
    assert cold < set(found)


def test_retrieval_that_was_never_trained_is_named(made: tuple[Path, RunConfig, dict]) -> None:
    path = made[0]
    other = path.with_name("other.toml")
    other.write_text(path.read_text().replace("retrievers.next", "retrievers.later").replace('"next"', '"later"'))
    with pytest.raises(StoreError, match="later"):
        recommending.recommend_one(load_config(other), "u00001", k=3)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('recommend.retrieval="nobody"', "there are: similarity, next"),
        ('retrievers.next.kind="sas"', "there are: bert4rec"),
        ('retrievers.next.item_init.feature_set="none"', r"\[features\] has: item_knowledge, user_preference"),
        ('retrievers.similarity={kind="sasrec"}', "always there"),
        ('retrievers.a b={kind="sasrec"}', "cannot name anything stored"),
        ("retrievers.next.nonsense=1", "unknown key 'nonsense'"),
    ],
)
def test_a_wrong_retriever_is_refused_before_anything_starts(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        written(tmp_path, line)


def test_it_is_verified_repaired_vacuumed_and_forgets(tmp_path: Path) -> None:
    path, config = written(tmp_path)
    steps.ingest(config)
    for name in config.features:
        steps.generate(config, name)
    trained = CliRunner().invoke(app, ["train", "-c", str(path), "--set", "train.epochs=1"])
    root = config.store.root
    weights = root / "sequential_runs" / "next" / "v000001" / "weights.safetensors"
    assert "gru4rec, trained in " in trained.output
    assert verify(config, users=0)["problems"] == []

    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert any(str(weights) in problem for problem in verify(config, users=0)["problems"])
    assert "nightshift train" in upkeep.repair(config)[-1]
    assert retrieving.train_retrievers(config)["retrievers"][0]["trained"]
    recommending.recommend_all(config)

    wider = written(tmp_path, "retrievers.next.width=4")[1]
    retrieving.train_retrievers(wider)
    upkeep.vacuum(wider, grace_days=0, dry_run=False)
    assert len(files.versions(root / "sequential_runs" / "next")) == 2  # the stored recommendations name the first
    recommending.recommend_all(wider)
    upkeep.vacuum(wider, grace_days=0, dry_run=False)
    assert [v.number for v in files.versions(root / "sequential_runs" / "next")] == [
        files.version(root / "sequential_runs" / "next").number
    ]
    assert upkeep.forget(wider, "u00003")["traces"] == []
    assert retrieving.train_retrievers(wider)["retrievers"][0]["trained"]  # the data are others now
    assert verify(wider, users=0)["problems"] == []


# ------------------------------------------------------------------------------------------------ what must be found


@pytest.fixture(scope="module")
def audited(made: tuple[Path, RunConfig, dict]) -> Audited:
    """The clean store as its audit sees it."""
    config, root = made[1], made[1].store.root
    taken = learning.snapshot(config)
    return Audited(
        taken,
        prompts_cache(root).fetch([]),
        {},
        time_split=True,
        retrievers={"next": runs.load_run(root, "next")},
        sequences=sequences(taken.dataset, config.split),
    )


def test_a_clean_retriever_raises_no_alarm(made: tuple[Path, RunConfig, dict], audited: Audited) -> None:
    found = audit(made[1])

    assert (found["leaks"], found["not_audited"]) == ([], [])
    assert "next" in found["runs"]
    assert [*retriever_of_everything(audited), *reduction_of_everything(audited)] == []


def test_a_retriever_with_items_of_judging_rows_is_found(audited: Audited) -> None:
    run, data = audited.retrievers["next"], audited.sequences
    assert data is not None
    leaking = replace(run, items=(*run.items, data.items[-1]))

    (said,) = retriever_of_everything(replace(audited, retrievers={"next": leaking}))
    assert f"knows 1 items of no training row, as {data.items[-1]!r}" in said


def test_text_reduced_by_more_than_training_items_is_found(audited: Audited) -> None:
    run, data = audited.retrievers["next"], audited.sequences
    assert data is not None
    assert run.reduction is not None
    stored: ItemText = item_vectors(audited.snapshot.features["item_knowledge"], data.items)
    everything = stored.vectors[stored.known].mean(axis=0)
    leaking = replace(run, reduction=replace(run.reduction, mean=everything))
    told = audited.snapshot.features["item_knowledge"]
    newer = replace(told, manifest={**told.manifest, "content_hash": "newer"})
    later = replace(audited.snapshot, features={"item_knowledge": newer})

    assert np.abs(everything - run.reduction.mean).max() > 1e-3
    (said,) = reduction_of_everything(replace(audited, retrievers={"next": leaking}))
    assert "reduced by more than the texts of items in training rows" in said
    assert list(reduction_of_everything(replace(audited, retrievers={"next": leaking}, snapshot=later))) == []


def test_a_run_on_other_data_is_said_not_to_be_audited(made: tuple[Path, RunConfig, dict]) -> None:
    config = load_config(made[0], ["split.test=0.3"])

    assert "next" in audit(config)["not_audited"]
    assert pl.Series(audit(config)["runs"]).is_empty()
