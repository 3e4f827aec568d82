"""Recommendations: unseen items, ranked by the model, for anybody, from stored vectors alone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ctr_models import zoo
from ctr_models.recommend import Recommender
from ctr_models.runs import save_run
from ctr_models.samples import SampleConfig, encode
from ctr_models.sequential import zoo as sequential_zoo
from ctr_models.sequential.retriever import Retriever
from ctr_models.sequential.sequences import sequences
from ctr_models.sequential.train import TrainConfig as SequenceConfig
from ctr_models.sequential.train import fit as fit_sequences
from ctr_models.train import Run, TrainConfig, fit, score
from storage import plugins
from storage.errors import StoreError
from storage.interactions import Dataset
from storage.schema import RECOMMENDATIONS
from storage.snapshot import Snapshot
from storage.split import Ratio
from tests.ctr_models.conftest import make_world, store, without_features

CONFIG = TrainConfig(batch_size=256, epochs=3, threads=1, samples=SampleConfig(max_history=20))
KINDS = plugins.available(zoo)


def trained(snapshot: Snapshot, kind: str = "deepfm") -> Run:
    options = plugins.load(zoo, kind).Config(learning_rate=5e-3)
    return fit(encode(snapshot, CONFIG.samples), kind=kind, options=options, config=CONFIG)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return make_world(rows=1200)


@pytest.fixture(scope="module", params=["with text", "without text"])
def made(request: pytest.FixtureRequest, snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    data = snapshot if request.param == "with text" else without_features(snapshot)
    root = tmp_path_factory.mktemp("root")
    store(root, data)
    return Recommender(trained(data), root, nearest=20, popular=10)


def seen(dataset: Dataset, user: str) -> set[str]:
    return set(dataset.interactions.filter(pl.col("user_id") == user)["item_id"])


def test_seen_items_are_left_out_and_ranks_follow_scores(made: Recommender, snapshot: Snapshot) -> None:
    for user in snapshot.dataset.users["user_id"]:
        frame = made.recommend(user, 10)

        assert dict(frame.schema) == dict(RECOMMENDATIONS)
        assert frame["rank"].to_list() == list(range(1, len(frame) + 1))
        assert frame["score"].is_sorted(descending=True)
        assert frame["item_id"].n_unique() == len(frame) == 10
        assert not seen(snapshot.dataset, user) & set(frame["item_id"])


def test_given_items_are_ranked_by_the_scores_of_recommendations(made: Recommender, snapshot: Snapshot) -> None:
    best = made.recommend("u1", 8)
    again = made.rank("u1", best["item_id"].to_list()[::-1])
    known = sorted(seen(snapshot.dataset, "u1"))[:3]

    assert again["item_id"].to_list() == best["item_id"].to_list()
    assert again["score"].to_list() == pytest.approx(best["score"].to_list(), abs=1e-6)
    assert again["rank"].to_list() == list(range(1, 9))
    assert set(made.rank("u1", known)["item_id"]) == set(known)
    assert made.rank("nobody", known)["score"].is_sorted(descending=True)
    assert made.rank("u1", []).is_empty()
    with pytest.raises(ValueError, match="no item 'i999'"):
        made.rank("u1", ["i1", "i999"])


def test_many_users_at_once_are_the_same_as_one_by_one(made: Recommender, snapshot: Snapshot) -> None:
    users = [*snapshot.dataset.users["user_id"][:7], "nobody"]

    assert made.recommend_many(users, 5).equals(pl.concat([made.recommend(user, 5) for user in users]))
    assert made.recommend_many([], 5).is_empty()


def test_unknown_users_get_what_most_people_liked(made: Recommender, snapshot: Snapshot) -> None:
    liked = snapshot.dataset.interactions.filter(pl.col("rating") > 3).group_by("item_id").len("n")
    frame = made.recommend("nobody", 5)
    counts = dict(liked.rows())

    assert [counts[item] for item in frame["item_id"]] == sorted(counts.values(), reverse=True)[:5]
    assert frame["score"].to_list() == pytest.approx([counts[i] / 40 for i in frame["item_id"]])


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_models_own(tmp_path: Path, kind: str) -> None:
    """The last row of each user, scored by the recommender from the rows before it, as training scored it."""
    snapshot = make_world(rows=1200)
    run = trained(snapshot, kind)
    samples = snapshot.samples
    data = encode(snapshot, CONFIG.samples, vocabulary=run.vocabulary, statistics=run.statistics)
    test = samples.filter(pl.col("split") == "test").with_columns(score=pl.Series(score(run.model, data, "test")))
    last = test.group_by("user_id", maintain_order=True).last().head(5)
    rows = snapshot.dataset.interactions
    for sample in last.iter_rows(named=True):
        earlier = rows.filter((pl.col("user_id") != sample["user_id"]) | (pl.col("timestamp") < sample["timestamp"]))
        root = tmp_path / sample["user_id"]
        store(root, replace(snapshot, dataset=replace(snapshot.dataset, interactions=earlier)))
        frame = Recommender(run, root, nearest=60, popular=60).recommend(sample["user_id"], 60)
        found = frame.filter(pl.col("item_id") == sample["item_id"])["score"].to_list()
        if sample["item_id"] not in seen(replace(snapshot.dataset, interactions=earlier), sample["user_id"]):
            assert found == pytest.approx([sample["score"]], abs=1e-5)


def test_a_new_item_with_a_stored_text_is_recommended_without_retraining(tmp_path: Path) -> None:
    snapshot = make_world(rows=1200)
    run = trained(snapshot)
    feature = snapshot.features["item_knowledge"]
    store(tmp_path / "before", snapshot)
    best = Recommender(run, tmp_path / "before", nearest=60, popular=60).recommend("u3", 1)["item_id"][0]
    twin = feature.rows.filter(pl.col("entity_id") == best)
    new = pl.DataFrame({"item_id": ["new"], "title": ["New"], "colours": [["red"]]})
    rows = pl.concat([feature.rows, twin.with_columns(entity_id=pl.lit("new"))]).sort("entity_id")
    dataset = replace(snapshot.dataset, items=pl.concat([snapshot.dataset.items, new]))
    later = replace(
        snapshot, dataset=dataset, features={**snapshot.features, "item_knowledge": replace(feature, rows=rows)}
    )
    store(tmp_path, later)
    ranked = Recommender(run, tmp_path, nearest=60, popular=60).recommend("u3", 60)["item_id"].to_list()

    assert "new" not in run.vocabulary.named("item.item_id").values
    assert ranked.index("new") < len(ranked) / 3


def test_a_user_without_a_history_gets_popular_items(tmp_path: Path) -> None:
    snapshot = make_world()
    run = trained(snapshot)
    data = snapshot.dataset
    fresh = replace(
        data, users=pl.concat([data.users, pl.DataFrame({"user_id": ["fresh"], "age": [30], "town": ["a"]})])
    )
    store(tmp_path, replace(snapshot, dataset=fresh))
    recommender = Recommender(run, tmp_path)

    assert recommender.recommend("fresh", 4)["item_id"].equals(recommender.recommend("nobody", 4)["item_id"])


def test_a_missing_feature_set_is_named(tmp_path: Path, snapshot: Snapshot) -> None:
    store(tmp_path, without_features(snapshot))
    with pytest.raises(StoreError, match="item_knowledge"):
        Recommender(trained(snapshot), tmp_path)


def test_one_who_has_seen_everything_gets_nothing(tmp_path: Path) -> None:
    snapshot = without_features(make_world(users=4, items=6, rows=600))
    store(tmp_path, snapshot)

    assert Recommender(trained(snapshot), tmp_path).recommend("u1", 5).is_empty()


@pytest.mark.slow
def test_a_fresh_interpreter_recommends_without_an_llm_or_a_scheduler(tmp_path: Path, snapshot: Snapshot) -> None:
    store(tmp_path, snapshot)
    save_run(tmp_path, "with_text", trained(snapshot))
    code = """
import sys
from pathlib import Path
from ctr_models.recommend import Recommender
from ctr_models.runs import load_run
root = Path(sys.argv[1])
print(len(Recommender(load_run(root, "with_text"), root).recommend("u1", 10)))
heavy = {"vllm", "transformers", "sentence_transformers", "prefect", "openai", "typer"} & set(sys.modules)
print(sorted(heavy))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )

    assert done.stdout.split("\n")[:2] == ["10", "[]"]


def test_candidates_may_come_from_a_sequential_model(tmp_path: Path) -> None:
    """The same ranking model over what a retriever finds; who has no history, or is unknown, gets what is popular."""
    snapshot = without_features(make_world(rows=1200))
    data = snapshot.dataset
    fresh = pl.DataFrame({"user_id": ["fresh"], "age": [30], "town": ["a"]})
    store(tmp_path, replace(snapshot, dataset=replace(data, users=pl.concat([data.users, fresh]))))
    options = plugins.load(sequential_zoo, "gru4rec").Config(width=8)
    learned = sequences(data, Ratio(test=0.2))
    next_item = fit_sequences(learned, kind="gru4rec", options=options, config=SequenceConfig(epochs=1, threads=1))
    run = trained(snapshot)
    plain, both = (
        Recommender(run, tmp_path, retrieval=retrieval, nearest=6, popular=3) for retrieval in (None, next_item)
    )
    retriever = Retriever(next_item, data.items["item_id"])
    liked = data.interactions.filter(pl.col("rating") > 3).group_by("item_id").len("n").sort("n", descending=True)
    others = 0
    for user in data.users["user_id"]:
        rows = data.interactions.filter(user_id=user).sort("timestamp", "source_row")
        popular = liked.filter(~pl.col("item_id").is_in(rows["item_id"].implode()))
        popular = popular.filter(pl.col("n") >= popular["n"][2])["item_id"]
        found = set(both.recommend(user, 3)["item_id"])
        assert found <= set(retriever.candidates(rows["item_id"].to_list(), 6)) | set(popular)
        others += found != set(plain.recommend(user, 3)["item_id"])

    assert others > 0
    for stranger in ("fresh", "nobody"):
        assert both.recommend(stranger, 4).equals(plain.recommend(stranger, 4))
