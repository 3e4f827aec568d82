"""A whole night by the steps and by the command line: done once, resumed after a kill, cheap when little changed."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows import learning, recommending, steps
from flows.config import RunConfig, load_config
from flows.verify import verify
from storage import files
from storage.cache import parts
from storage.catalog import query
from storage.ingest import load_dataset

TINY = """
[store]
root = "{root}"
[dataset]
source = "world"
users = {users}
items = 60
[engines.rule]
kind = "template"
[features.item_knowledge]
prompt = "item_knowledge"
engine = "rule"
[features.user_preference]
prompt = "user_preference"
engine = "rule"
[encoder]
kind = "hashing"
dim = 32
[split]
kind = "ratio"
test = 0.2
[train]
epochs = 2
[models.deepfm]
kind = "deepfm"
[compare]
resamples = 20
[recommend]
model = "deepfm"
k = 5
"""
COMMAND = [sys.executable, "-m", "flows.cli"]


def tiny(folder: Path, *overrides: str, users: int = 40) -> tuple[Path, RunConfig]:
    path = folder / "tiny.toml"
    path.write_text(TINY.format(root=folder / "store", users=users))
    return path, load_config(path, overrides)


def whole_night(config: RunConfig) -> dict:
    summary: dict = {"ingest": steps.ingest(config)}
    summary["features"] = [steps.generate(config, name) for name in config.features]
    return summary | learning.train(config) | recommending.recommend_all(config) | steps.publish_catalog(config)


def content(root: Path) -> dict[str, str]:
    """Content hash of the newest version of every published table."""
    folders = [root / "dataset", root / "recommendations", *(root / "features").iterdir(), *(root / "runs").iterdir()]
    return {str(folder.relative_to(root)): files.version(folder).content_hash for folder in folders}


def test_the_second_night_does_nothing_again(tmp_path: Path) -> None:
    config = tiny(tmp_path)[1]
    first = whole_night(config)
    before = content(config.store.root)
    second = whole_night(config)

    assert all(done["generation"]["sent"] == done["wanted"] > 0 for done in first["features"])
    assert [done["generation"]["sent"] for done in second["features"]] == [0, 0]
    assert [done["encoding"]["encoded"] for done in second["features"]] == [0, 0]
    assert [done["version"] for done in second["features"]] == [1, 1]
    assert first["models"][0]["trained"] == ["without", "with"]
    assert second["models"][0]["trained"] == []
    assert first["models"][0]["gain"] == second["models"][0]["gain"]
    assert before == content(config.store.root)
    assert verify(config, users=40)["problems"] == []


def test_training_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before the process ended is not trained again; another comparison trains nothing."""
    config = tiny(tmp_path)[1]
    steps.ingest(config)
    for name in config.features:
        steps.generate(config, name)
    fit = learning.fit

    def dies_with_text(samples: learning.Samples, **rest: Any) -> learning.Run:
        if samples.texts:
            raise KeyboardInterrupt
        return fit(samples, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(learning, "fit", dies_with_text)
        with pytest.raises(KeyboardInterrupt):
            learning.train(config)
    assert learning.train(config)["models"][0]["trained"] == ["with"]
    again = learning.train(tiny(tmp_path, "compare.resamples=30")[1])["models"][0]
    assert (again["trained"], again["gain"]["auc"]["mean"] != 0) == ([], True)
    assert verify(config, users=0)["problems"] == []


def test_a_night_leaves_what_sql_and_people_ask_for(tmp_path: Path) -> None:
    config = tiny(tmp_path)[1]
    summary = whole_night(config)
    root = config.store.root

    texts = query(root, "SELECT count(*) FROM item_knowledge").item()
    assert texts == summary["features"][0]["accepted"] == summary["ingest"]["items"]
    assert query(root, "SELECT count(*) FROM recommendations").item() == summary["recommendations"]["rows"]
    seen = "SELECT count(*) FROM recommendations JOIN interactions USING (user_id, item_id)"
    assert query(root, seen).item() == 0
    assert {"deepfm", "deepfm.without"} == set(query(root, "SELECT name FROM runs")["name"])
    one = recommending.recommend_one(config, "nobody has this id", k=3)
    assert [row["rank"] for row in one["items"]] == [1, 2, 3]


def test_what_one_changed_fact_costs(tmp_path: Path) -> None:
    """A changed title: one prompt. A rating that crosses no checkpoint: none. One that crosses: one."""
    titles = {f"i{i}": f"Title {i}" for i in range(12)}
    ratings = [
        (f"u{u}", f"i{(i + u) % 12}", 1 + (u + i) % 5, 100 * i + u) for u in range(8) for i in range(9 if u else 8)
    ]
    path = tmp_path / "own.toml"
    own = TINY.format(root=tmp_path / "store", users=1).replace('source = "world"\nusers = 1\nitems = 60', "{dataset}")
    dataset = f"""source = "csv"
name = "own"
domain = "general"
interactions = {{path = "{tmp_path}/r.csv", user = "user_id", item = "item_id", rating = "rating", timestamp = "t"}}
items = {{path = "{tmp_path}/i.csv", item = "item_id", title = "title"}}"""
    path.write_text(own.replace("{dataset}", dataset))

    def sent() -> list[int]:
        pl.DataFrame(ratings, schema=["user_id", "item_id", "rating", "t"], orient="row").write_csv(tmp_path / "r.csv")
        pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}).write_csv(tmp_path / "i.csv")
        config = load_config(path)
        steps.ingest(config)
        return [steps.generate(config, name)["generation"]["sent"] for name in config.features]

    assert sent() == [12, 8]  # items, and the checkpoint at 5 of each user
    titles["i3"] = "Another title"
    assert sent() == [1, 0]
    ratings.append(("u0", "i8", 5, 5000))  # the 9th rating of u0
    assert sent() == [0, 0]
    ratings.append(("u0", "i9", 5, 5001))  # the 10th
    assert sent() == [0, 1]


def test_an_anonymised_feature_set_lies_beside_the_one_about_titles(tmp_path: Path) -> None:
    config = tiny(tmp_path)[1]
    steps.ingest(config)
    named = [steps.generate(config, name)["content_hash"] for name in config.features]
    hidden = tiny(tmp_path, *(f"features.{name}.anonymised=true" for name in config.features))[1]
    done = [steps.generate(hidden, name) for name in hidden.features]
    assert all(one["generation"]["sent"] == one["wanted"] > 0 for one in done)

    again = [steps.generate(config, name) for name in config.features]
    assert [one["generation"]["sent"] for one in again] == [0, 0]
    assert [one["content_hash"] for one in again] == named
    titles = load_dataset(config.store.root).items["title"].to_list()
    assert _named(config, "item_knowledge", 1, titles)
    assert not any(_named(config, name, 2, titles) for name in config.features)


def _named(config: RunConfig, feature: str, version: int, titles: list[str]) -> bool:
    """Whether any text of a version names any title."""
    found = files.version(config.store.root / "features" / feature, version)
    said = "\n".join(files.read_table(found, "features.parquet")["text"])
    return any(title in said for title in titles)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_generation_costs_at_most_a_shard(tmp_path: Path) -> None:
    """SIGKILL while texts are being stored, then the same command: everything once, equal content."""
    shard = 64
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    config_path, config = tiny(tmp_path / "killed", users=600)
    whole = tiny(tmp_path / "whole", users=600)[1]
    command = [*COMMAND, "generate", "--config", str(config_path), "--set", f"generate.shard_size={shard}"]
    steps.ingest(config)
    texts = config.store.root / "texts"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(parts(texts)) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = sum(pl.scan_parquet(part).select(pl.len()).collect().item() for part in parts(texts))
    resumed = [steps.generate(config, name) for name in config.features]
    steps.ingest(whole)
    uninterrupted = [steps.generate(whole, name) for name in whole.features]

    wanted = sum(done["generation"]["sent"] for done in uninterrupted)
    assert 0 < stored < wanted, "the kill came too early or too late to tell anything"
    assert wanted - stored == sum(done["generation"]["sent"] for done in resumed)
    assert [d["content_hash"] for d in uninterrupted] == [d["content_hash"] for d in resumed]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset.user=3"], "unknown key 'user'; allowed are"),
        (["labels.rating_abov=3"], "allowed are rating_above"),
        (["dataset.source=nowhere"], "there are: amazon, book_crossing, csv, movielens, world"),
        (["engines.rule.kind=vllm", "engines.rule.model=/no/such/model"], "/no/such/model"),
        (["engines.rule.kind=precomputed", "engines.rule.path=/no/such.jsonl"], "/no/such.jsonl"),
        (["split.kind=leave_one_out"], "split"),
        (["nonsense"], "must read section.key=value"),
    ],
)
def test_bad_configurations_are_said_without_a_traceback(tmp_path: Path, overrides: list[str], said: str) -> None:
    path = tiny(tmp_path)[0]
    options = [part for override in overrides for part in ("--set", override)]
    steps.ingest(tiny(tmp_path)[1])
    before = sorted(str(p) for p in (tmp_path / "store").rglob("*"))
    done = subprocess.run(
        [*COMMAND, "generate", "--config", str(path), *options], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("nightshift: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert before == sorted(str(p) for p in (tmp_path / "store").rglob("*") if p.name != "writer.lock")


def test_the_command_line_teaches_and_plans_without_writing(tmp_path: Path) -> None:
    path = tiny(tmp_path)[0]
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    for command in (
        *("ingest", "plan", "generate", "train", "evaluate"),
        *("recommend", "sql", "verify", "nightly", "serve", "audit", "repair", "vacuum", "forget"),
    ):
        assert command in shown
    planned = subprocess.run([*COMMAND, "plan", "-c", str(path)], capture_output=True, text=True, check=True).stdout

    assert "60 texts wanted: 60 new" in planned
    assert "nothing was written" in planned
    assert not (tmp_path / "store").exists()


def test_recommending_loads_no_llm_library(tmp_path: Path) -> None:
    path, config = tiny(tmp_path)
    whole_night(config)
    code = f"""
import sys
from flows.config import load_config
from flows.recommending import recommend_one
print(len(recommend_one(load_config({str(path)!r}), "u00001", k=3)["items"]))
print([name for name in ("vllm", "transformers", "sentence_transformers", "prefect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["3", "[]"]
