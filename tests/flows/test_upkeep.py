"""What is damaged is mended, what nobody names goes and nothing else, and who asks to be forgotten is."""

import os
import shutil
import time
from pathlib import Path

import polars as pl
import pytest

from ctr_models.runs import load_run
from flows import learning, recommending, steps, upkeep
from flows.cli import main
from flows.config import RunConfig
from flows.night import run_night
from flows.verify import verify
from storage import files
from storage.cache import parts
from storage.catalog import query
from storage.errors import StoreError
from storage.features import load_features
from storage.ingest import load_dataset
from storage.traces import traces
from tests.flows.test_night import content, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after a whole night; copied by each test."""
    config = tiny(tmp_path_factory.mktemp("made"), "train.epochs=1")[1]

    def work() -> dict:
        summary: dict = {"ingest": steps.ingest(config)}
        summary["features"] = [steps.generate(config, name) for name in config.features]
        return summary | learning.train(config) | recommending.recommend_all(config)

    run_night(config.store.root, "night", "2026-01-01", work, then=lambda: steps.publish_catalog(config))
    return config.store.root


@pytest.fixture
def config(made: Path, tmp_path: Path) -> RunConfig:
    """A run over a copy of that store."""
    config = tiny(tmp_path, "train.epochs=1")[1]
    shutil.copytree(made, config.store.root)
    steps.publish_catalog(config)  # over the copy, not over what it was copied from
    return config


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100 if path.suffix == ".duckdb" else len(data) // 2] ^= 1  # a catalog has pages that nothing is on
    path.write_bytes(data)


# ------------------------------------------------------------------------------------------------ verify and repair

DAMAGE = {
    "a table of the dataset": "dataset/v000001/interactions.parquet",
    "its manifest": "dataset/v000001/manifest.json",
    "texts of a feature set": "features/user_preference/v000001/features.parquet",
    "its vectors": "features/user_preference/v000001/vectors.parquet",
    "its lineage": "features/user_preference/v000001/manifest.json",
    "cached prompts": "prompts/*.parquet",
    "cached texts": "texts/*.parquet",
    "cached vectors": "vectors/*/*.parquet",
    "weights": "runs/deepfm/v000001/weights.safetensors",
    "a vocabulary": "runs/deepfm/v000001/vocabulary.json",
    "recommendations": "recommendations/v000001/recommendations.parquet",
    "the record of a night": "nights/*.json",
    "the catalog": "catalog.duckdb",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_set_aside_and_rebuilt(what: str, config: RunConfig) -> None:
    """To the same content as before, where the caches, the source or training can give it again."""
    root = config.store.root
    before = content(root)
    damaged = sorted(root.glob(DAMAGE[what]))[0]
    flip(damaged)
    named = verify(config, users=0)["problems"]
    assert len(named) > 0
    assert any(str(damaged.relative_to(root)) in problem for problem in named)

    said = upkeep.repair(config)
    assert str(damaged.relative_to(root)).split("/manifest")[0].rsplit("/", 1)[0] in said[0]
    assert verify(config, users=40)["problems"] == []
    if what in ("weights", "a vocabulary"):
        assert "nightshift train" in said[-1]
        learning.train(config)
    recommending.recommend_all(config)
    assert before == content(root)
    assert upkeep.repair(config) == []


def test_lost_texts_of_a_model_are_never_sent_again_by_repair(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What published versions hold is taken from them; what they do not hold is said to be lost."""
    texts = parts(config.store.root / "texts")
    n_texts = sum(len(pl.read_parquet(part)) for part in texts)
    for part in texts:
        flip(part)
    monkeypatch.setattr("llm_features.engines.template.Engine.generate", lambda *a, **b: pytest.fail("was asked"))
    said = upkeep.repair(config)

    assert f"{n_texts} texts were taken back from published feature sets" in said


def test_verify_names_what_a_hash_does_not_show(config: RunConfig) -> None:
    """A version written whole, with all hashes right, by a program that got it wrong."""
    root = config.store.root
    version = files.version(root / "features" / "item_knowledge")
    tables = {name: pl.read_parquet(version.path / name) for name in version.manifest["files"]}
    run = files.version(root / "runs" / "deepfm")

    def wrong(**changed: pl.DataFrame) -> list[str]:
        write = {name: {**tables, **{f"{k}.parquet": v for k, v in changed.items()}}[name] for name in tables}
        new = files.publish(
            version.path.parent,
            {name: frame.write_parquet for name, frame in write.items()},
            content_hash="another",
            meta=version.meta,
        )
        problems = verify(config, users=0)["problems"]
        shutil.rmtree(new.path)
        return problems

    features, vectors = tables["features.parquet"], tables["vectors.parquet"]
    assert "its manifest says 60" in wrong(features=features.head(59))[0]
    assert "must be Int64" in wrong(features=features.cast({"as_of": pl.Int32}, strict=False).fill_null(0))[0]
    assert "texts that are not what their hash says" in wrong(features=features.with_columns(text=pl.lit("x")))[0]
    longer = vectors.with_columns(pl.Series("vector", vectors["vector"].to_numpy() * 2, vectors.schema["vector"]))
    assert "whose length is not 1" in wrong(vectors=longer)[0]
    assert "without a vector" in wrong(vectors=vectors.with_columns(text_hash=pl.lit("0") + "text_hash"))[0]
    lineage = {**run.meta["lineage"], "features": {"item_knowledge": {"version": 1, "content_hash": "0" * 64}}}
    files.publish(run.path.parent, {}, content_hash="other", meta={**run.meta, "lineage": lineage})
    assert "was made from another version 1 of item_knowledge" in verify(config, users=0)["problems"][0]


def test_the_commands_say_what_they_did(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["nightshift", *arguments, "-c", str(config.store.root.parent / "tiny.toml")])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    part = parts(config.store.root / "texts")[0]
    assert asked("verify", "--users", "5")[0] == 0
    flip(part)
    status, said = asked("verify")
    assert (status, f"{part} is damaged" in said) == (1, True)
    status, said = asked("repair")
    assert (status, "set aside texts/" in said) == (0, True)
    assert asked("repair") == (0, "nothing is damaged\n")
    status, said = asked("vacuum", "--grace-days", "0", "--dry-run")
    assert (status, "set aside by repair" in said, "bytes would go" in said) == (0, True, True)
    assert "bytes removed" in asked("vacuum", "--grace-days", "0")[1]
    status, said = asked("forget", "--user", "u00002")
    assert (status, "0 speak of this person" in said) == (0, True)


# ------------------------------------------------------------------------------------------------ vacuum


def changed(config: RunConfig) -> None:
    """A night with other texts: an older version of everything becomes superfluous."""
    root = config.store.root
    other = config.model_copy(
        update={"features": {n: f.model_copy(update={"max_history": 3}) for n, f in config.features.items()}}
    )
    for name in other.features:
        steps.generate(other, name)
    learning.train(other)
    recommending.recommend_all(other)
    steps.publish_catalog(other)
    assert files.numbers(root / "features" / "user_preference") == [1, 2]


def test_vacuum_removes_the_superseded_after_the_grace_period_and_never_more(config: RunConfig) -> None:
    root = config.store.root
    changed(config)
    leftover = root / "texts" / ".dead.tmp"
    leftover.write_bytes(b"half")
    before, live = sorted(root.rglob("*")), content(root)
    texts = query(root, "SELECT * EXCLUDE vector FROM user_preference ORDER BY ALL")

    assert upkeep.vacuum(config, grace_days=7, dry_run=False) == []
    assert before == sorted(root.rglob("*"))
    would = upkeep.vacuum(config, grace_days=0, dry_run=True)
    assert before == sorted(root.rglob("*"))
    removed = upkeep.vacuum(config, grace_days=0, dry_run=False)

    assert would == removed
    assert files.numbers(root / "features" / "user_preference") == [2]
    assert not leftover.exists()
    assert live == content(root)
    assert texts.equals(query(root, "SELECT * EXCLUDE vector FROM user_preference ORDER BY ALL"))
    assert verify(config, users=40)["problems"] == []
    assert upkeep.vacuum(config, grace_days=0, dry_run=False) == []
    assert recommending.recommend_one(config, "u00001", k=3)["items"]


def test_vacuum_keeps_what_a_live_run_or_a_reader_names(config: RunConfig) -> None:
    root = config.store.root
    for name in config.features:  # texts change, the model is not trained again: it goes on naming the old ones
        other = config.features | {name: config.features[name].model_copy(update={"max_history": 3})}
        steps.generate(config.model_copy(update={"features": other}), name)
    upkeep.vacuum(config, grace_days=0, dry_run=False)
    assert files.numbers(root / "features" / "user_preference") == [1, 2]

    learning.train(config.model_copy(update={"features": other}))
    recommending.recommend_all(config)
    with files.held(files.version(root / "features" / "user_preference", 1)):
        upkeep.vacuum(config, grace_days=0, dry_run=False)
        assert files.numbers(root / "features" / "user_preference") == [1, 2]
    upkeep.vacuum(config, grace_days=0, dry_run=False)
    assert files.numbers(root / "features" / "user_preference") == [2]


def test_vacuum_touches_nothing_where_a_manifest_cannot_be_read(config: RunConfig) -> None:
    changed(config)
    flip(config.store.root / "runs" / "deepfm" / "v000002" / "manifest.json")
    before = sorted(config.store.root.rglob("*"))
    with pytest.raises(StoreError, match="is damaged"):
        upkeep.vacuum(config, grace_days=0, dry_run=False)
    assert before == sorted(config.store.root.rglob("*"))


# ------------------------------------------------------------------------------------------------ forget


def test_a_person_is_erased_everywhere_and_does_not_come_back(config: RunConfig) -> None:
    root, user = config.store.root, "u00001"
    changed(config)
    texts = upkeep._texts_of(root, user)
    night = next((root / "nights").iterdir())
    os.utime(night, (time.time() - 500, time.time() - 500))
    kinds = {Path(line.split(" holds")[0]).relative_to(root).parts[0] for line in traces(root, user, texts)[1]}
    assert {"dataset", "features", "runs", "recommendations", "nights", "texts", "prompts", "catalog.duckdb"} <= kinds
    others = load_features(root, "user_preference").rows.filter(pl.col("entity_id") != user)

    done = upkeep.forget(config, user)
    assert done["traces"] == []
    assert min(done["feature_rows"], done["recommendations"], done["vocabulary_values"], done["texts"]) > 0
    assert user not in set(load_dataset(root).users["user_id"])
    left = load_features(root, "user_preference").rows
    assert others.drop("vector_row").equals(left.drop("vector_row"))
    assert verify(config, users=40)["problems"] == []
    assert upkeep.forget(config, user)["traces"] == []

    steps.ingest(config)  # the source still holds the person
    for name in config.features:
        steps.generate(config, name)
    learning.train(config)
    recommending.recommend_all(config)
    steps.publish_catalog(config)
    assert traces(root, user, texts)[1] == []
    assert load_dataset(root).users.height == 39


def test_a_forgotten_models_other_rows_stay_as_they_were(config: RunConfig) -> None:
    root = config.store.root
    before = load_run(root, "deepfm")
    field = before.vocabulary.named("user.user_id")
    row = field.offset + field.values.index("u00001")
    upkeep.forget(config, "u00001")
    after = load_run(root, "deepfm")

    old, new = before.model.table.detach(), after.model.table.detach()
    assert float(new[row].abs().sum()) == 0 < float(old[row].abs().sum())
    same = [place for place in range(len(old)) if place != row]
    assert old[same].equal(new[same])


def test_the_search_finds_what_is_planted_anywhere(config: RunConfig) -> None:
    root, user = config.store.root, "u00001"
    upkeep.forget(config, user)
    planted = {
        "x.parquet": lambda path: pl.DataFrame({"a": ["said by u00001, once"]}).write_parquet(path),
        "y.json": lambda path: path.write_text('{"a": ["u0000\\u0031"]}'),
        "z.bin": lambda path: path.write_bytes(b"\x00\x01u00001\xff"),
    }
    for name, write in planted.items():
        write(root / name)
        assert traces(root, user, [])[1] == [f"{root / name} holds the id"]
        (root / name).unlink()
    (root / "z.bin").write_bytes(b"u000011 and xu00001")
    assert traces(root, user, [])[1] == []
