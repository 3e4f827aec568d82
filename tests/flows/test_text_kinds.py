"""Every kind of text and every way to read it is a feature set of one run; texts dated back are found out."""

import json
from pathlib import Path

import polars as pl
import pytest

from flows import learning, steps
from flows.audit import audit
from flows.config import RunConfig, load_config
from llm_features import domains, prompt_specs
from storage.errors import ConfigError
from storage.features import load_features
from storage.ingest import load_dataset
from tests.flows.test_night import TINY, tiny

ROOT = Path(__file__).parents[2]
KINDS = """
[engines.plain]
kind = "prompt"
[encoders.wide]
kind = "hashing"
dim = 48
[features.item_title]
prompt = "item_title"
engine = "plain"
[features.item_attributes]
prompt = "item_attributes"
engine = "plain"
encoder = "wide"
"""


def test_kinds_of_text_and_encoders_are_feature_sets_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "kinds.toml"
    path.write_text(TINY.format(root=tmp_path / "store", users=30) + KINDS)
    config = load_config(path)
    steps.ingest(config)
    done = {name: steps.generate(config, name) for name in config.features}
    root = config.store.root
    sets = {name: load_features(root, name) for name in config.features}
    items = load_dataset(root).items

    assert all(made["accepted"] == made["wanted"] - sum(made["skipped"].values()) for made in done.values())
    assert set(items["title"]) == set(sets["item_title"].rows["text"])
    first = sets["item_attributes"].rows["text"][0].split("\n")
    assert first[0] in set(items["title"])
    assert len(first) == 1 + len(load_dataset(root).attributes("item"))
    assert (sets["item_title"].vectors.shape[1], sets["item_attributes"].vectors.shape[1]) == (32, 48)
    assert learning.snapshot(config).samples["item_attributes_row"].min() >= 0  # type: ignore[operator]


def test_factors_are_asked_of_models_and_no_one_else(tmp_path: Path) -> None:
    """One factor is another prompt; a rule or a file would give the same text under another name."""
    config = tiny(tmp_path, "features.item_knowledge.factors=['genre']")[1]
    steps.ingest(config)
    with pytest.raises(ConfigError, match="engine 'rule' is none"):
        steps.plan(config, "item_knowledge")
    one = tiny(
        tmp_path,
        f"features.item_knowledge.factors=['{domains.load('world').factors[0]}']",
        "engines.rule.kind=openai",
        "engines.rule.model=any",
        "engines.rule.base_url=http://127.0.0.1:1/v1",
    )[1]
    every = one.model_copy(
        update={"features": {n: f.model_copy(update={"factors": ()}) for n, f in one.features.items()}}
    )
    plans = [steps.plan(config, "item_knowledge") for config in (one, every)]
    assert plans[0]["new"] == plans[1]["new"] > 0
    assert plans[0]["estimate"]["prompt_tokens"] < plans[1]["estimate"]["prompt_tokens"]


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_run_is_valid(path: Path) -> None:
    config = load_config(path)
    asked = {feature.prompt for feature in config.features.values()}

    assert asked <= set(prompt_specs.available())
    assert config.features


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features.item_knowledge.encoder is 'wide', but \[encoders\] has: none"):
        tiny(tmp_path, "features.item_knowledge.encoder=wide")


# --------------------------------------------------------------------------------------------- texts dated back


@pytest.fixture
def leaky(tmp_path: Path) -> RunConfig:
    """User texts that name everything their user ever liked, stored as if they had been there from the start."""
    config = tiny(tmp_path, users=60)[1]
    steps.ingest(config)
    data = load_dataset(config.store.root)
    liked = data.interactions.filter(pl.col("rating") > 3).join(data.items, on="item_id")
    with (tmp_path / "profiles.jsonl").open("w") as file:
        for user, titles in liked.group_by("user_id").agg(pl.col("title").sort()).sort("user_id").iter_rows():
            said = "This is a person who is known to have a taste for these, and for what is like them: "
            print(json.dumps({"user_id": user, "text": said + "; and the one called ".join(titles)}), file=file)
    return tiny(
        tmp_path,
        "engines.written={kind='precomputed', path='" + str(tmp_path / "profiles.jsonl") + "'}",
        "features.user_preference.engine=written",
        "features.user_preference.prompt=user_factor",
        f"compare.pairs={tmp_path / 'pairs.csv'}",
        users=60,
    )[1]


def test_texts_dated_back_are_found_out(leaky: RunConfig) -> None:
    for name in leaky.features:
        steps.generate(leaky, name)
    leaks = audit(leaky)["leaks"]

    assert any(leak.startswith("text_that_never_changes: user_preference: one text for several") for leak in leaks)
    assert any(leak.startswith("text_names_the_future: user_preference: texts name") for leak in leaks)
    assert not any("item_knowledge" in leak for leak in leaks)


def test_pairs_are_judged_apart(leaky: RunConfig) -> None:
    for name in leaky.features:
        steps.generate(leaky, name)
    test = learning.snapshot(leaky).samples.filter(split="test").select("user_id", "item_id")
    pairs = leaky.compare.pairs
    assert pairs is not None
    with pytest.raises(ConfigError, match=r"pairs.csv cannot be read as csv"):
        learning.train(leaky)
    test.unique(maintain_order=True).head(len(test) // 2).rename({"item_id": "movie_id"}).write_csv(pairs)
    judged = learning.train(leaky)["models"][0]

    assert judged["with"]["pairs_rows"] + judged["with"]["other_pairs_rows"] == judged["with"]["rows"] == len(test)
    assert judged["with"]["pairs_rows"] >= len(test) // 2
    assert set(judged["gain"]) >= {"auc", "pairs_auc", "other_pairs_auc"}
    assert learning.train(leaky)["models"][0]["trained"] == []
