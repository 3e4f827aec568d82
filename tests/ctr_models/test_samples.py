"""A batch against plain Python: histories strictly earlier, newest first, and similarities by the book."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from ctr_models import similarity
from ctr_models.candidates import CandidateSimilarity
from ctr_models.opinions import PRIOR_RATINGS
from ctr_models.samples import SampleConfig, Samples, encode
from ctr_models.similarity import NOISE, OFFSET, PRIOR, WIDTH, compare, similarity_names
from ctr_models.tables import dense
from ctr_models.text import fit_statistics
from storage.errors import ConfigError, StoreError
from storage.snapshot import Snapshot, join_as_of
from tests.ctr_models.conftest import World, first_ratings

CONFIG = SampleConfig(max_history=7)


def past(snapshot: Snapshot, sample: dict) -> list[dict]:
    rows = snapshot.dataset.interactions.filter(pl.col("user_id") == sample["user_id"])
    return [row for row in rows.iter_rows(named=True) if row["timestamp"] < sample["timestamp"]]


def some_places(samples: Samples, n: int = 60) -> torch.Tensor:
    return torch.randperm(len(samples.label), generator=torch.Generator().manual_seed(1))[:n]


def test_a_history_is_what_lies_strictly_before_newest_first(world: World) -> None:
    snapshot = world()
    samples = encode(snapshot, CONFIG)
    places = some_places(samples)
    batch = samples.batch(places)
    items = [["", *samples.tables.item_ids][row] for row in samples.tables.item_of]
    for row, place in enumerate(places.tolist()):
        sample = snapshot.samples.row(place, named=True)
        before = past(snapshot, sample)
        newest = before[::-1][:7]
        padding = 7 - len(newest)

        assert items[batch.item_B[row]] == sample["item_id"]
        assert samples.tables.user_ids[int(batch.user_B[row]) - 1] == sample["user_id"]
        assert [items[i] for i in batch.history_BL[row]] == [r["item_id"] for r in newest] + [""] * padding
        assert batch.rating_BL[row].tolist() == [int(r["rating"]) for r in newest] + [0] * padding
        assert batch.liked_BL[row].tolist() == [r["rating"] > 3 for r in newest] + [False] * padding
        liked = sum(r["rating"] > 3 for r in before)
        fields = samples.tables.vocabulary.of("history", "count", "share")
        counted = [liked, len(before) - liked, len(before), liked / len(before)]
        expected = [int(f.encode(pl.Series([n]))[0]) for f, n in zip(fields, counted, strict=True)]
        assert expected == batch.context_BC[row].tolist()


def test_text_rows_are_the_snapshots(world: World) -> None:
    snapshot = world(missing=0.3)
    samples = encode(snapshot, CONFIG, features=["user_preference", "item_knowledge"])
    places = some_places(samples)
    batch = samples.batch(places)
    known = samples.tables.items.text
    texts = dict(snapshot.features["item_knowledge"].rows.select("entity_id", "vector_row").rows())
    for row, place in enumerate(places.tolist()):
        sample = snapshot.samples.row(place, named=True)
        newest = past(snapshot, sample)[::-1][:7]

        assert batch.user_text_BT[row].tolist() == [sample["user_preference_row"] + 1]
        assert known[batch.item_B[row]].tolist() == [sample["item_knowledge_row"] + 1]
        expected = [texts.get(r["item_id"], -1) + 1 for r in newest] + [0] * (7 - len(newest))
        assert expected == known[batch.history_BL[row]][:, 0].tolist()


def test_vectors_are_centred_on_what_training_rows_find(world: World) -> None:
    snapshot = world()
    item, user = encode(snapshot, CONFIG).texts
    train = snapshot.samples.filter(pl.col("split") == "train")
    found = train["item_knowledge_row"].unique().to_numpy() + 1

    assert item.vectors[found].mean(dim=0).abs().max() < 1e-6
    assert len(found) < len(item.vectors) - 1  # the late items are not among them
    assert (item.vectors[0] == 0).all()
    assert [item.name, user.name] == ["item_knowledge", "user_preference"]


def partly_rated(snapshot: Snapshot) -> Snapshot:
    """The same without a fifth of the ratings: what is not rated is not liked."""
    rating = pl.when(pl.int_range(pl.len()) % 5 > 0).then("rating")
    interactions = snapshot.dataset.interactions.with_columns(rating)
    return replace(snapshot, dataset=replace(snapshot.dataset, interactions=interactions))


def opinions(snapshot: Snapshot) -> dict[int, float]:
    """How much more than its item's usual rating each row of the source has, by the book."""
    rows = {row["source_row"]: row for row in snapshot.dataset.interactions.iter_rows(named=True)}
    train = [rows[i] for i in snapshot.samples.filter(pl.col("split") == "train")["source_row"]]
    first = {row["source_row"] for row in first_ratings(snapshot)}
    rated = [row for row in train if row["rating"] is not None and row["source_row"] in first]
    overall = np.mean([row["rating"] for row in rated])
    given: dict[str, list[float]] = {}
    for row in rated:
        given.setdefault(row["item_id"], []).append(row["rating"])
    usual = {item: (sum(r) + PRIOR_RATINGS * overall) / (len(r) + PRIOR_RATINGS) for item, r in given.items()}
    deviation = np.sqrt(np.mean([(row["rating"] - usual[row["item_id"]]) ** 2 for row in rated]))
    return {
        place: (row["rating"] - usual.get(row["item_id"], overall)) / deviation
        for place, row in rows.items()
        if row["rating"] is not None
    }


@pytest.mark.parametrize(("whiten", "hop"), [(True, 200), (False, 200), (True, 10)])
def test_similarities_follow_their_definition(
    world: World, whiten: bool, hop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Solved anew for each row from its own past, where the code takes all rows of a user from one factor."""
    monkeypatch.setattr(similarity, "HOP", hop)
    snapshot = partly_rated(world(missing=0.2))
    told = opinions(snapshot)
    samples = encode(snapshot, CONFIG.model_copy(update={"whiten": whiten}))
    names = similarity_names([text.statistics for text in samples.texts])
    half = [text.vectors.numpy() * text.statistics.deviations**0.5 for text in samples.texts]
    matrix, wished = half
    texts = dict(snapshot.features["item_knowledge"].rows.select("entity_id", "vector_row").rows())

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    for place in some_places(samples).tolist():
        sample = snapshot.samples.row(place, named=True)
        got = dict(zip(names, samples.similarity[place].tolist(), strict=True))
        target = texts.get(sample["item_id"])
        earlier = past(snapshot, sample)
        newest = [r for r in earlier[max(0, len(earlier) // hop - 1) * hop :] if r["item_id"] in texts]
        expected = dict.fromkeys(names, np.nan)
        if target is not None and newest:

            def near(one: int, other: int) -> float:
                return float(np.exp((cosine(matrix[one + 1], matrix[other + 1]) - 1) / WIDTH))

            weights = [near(target, texts[r["item_id"]]) for r in newest]
            likes = [(r["rating"] or 0) > 3 for r in newest]
            vote = sum(w * (liked - np.mean(likes)) for w, liked in zip(weights, likes, strict=True))
            expected["item_knowledge.vote"] = vote / (sum(weights) + PRIOR)
            rated = [r for r in newest if r["rating"] is not None]
            if rated:
                rows = [texts[r["item_id"]] for r in rated]
                covariance = np.array([[near(a, b) for a in rows] for b in rows]) + OFFSET + NOISE * np.eye(len(rows))
                solved = np.linalg.solve(covariance, [told[r["source_row"]] for r in rated])
                expected["item_knowledge.expected"] = float(np.array([near(target, r) for r in rows]) @ solved)
        row = sample["user_preference_row"]
        if target is not None and row >= 0:
            expected["user_preference.item_knowledge"] = cosine(wished[row + 1], matrix[target + 1])
        for name in names:
            assert got[name] == pytest.approx(expected[name], abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize("hop", [200, 12])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_candidates_of_one_user_are_compared_as_rows_are(
    world: World, missing: float, hop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "HOP", hop)
    samples = encode(partly_rated(world(missing=missing)), CONFIG)
    tables, items = samples.tables, samples.tables.current[1:]
    near = CandidateSimilarity(tables, samples.texts)
    for user in range(1, len(tables.user_ids) + 1):
        n_before, user_text = int(tables.start[user + 1] - tables.start[user]), tables.users.text.numpy()[user]
        rows = [np.full(len(items), user), items, np.full(len(items), n_before), np.tile(user_text, (len(items), 1))]
        expected = compare(tables, samples.texts, *rows)
        got = near(user, items)

        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_ids_that_training_never_saw_are_unknown_but_keep_their_attributes(world: World) -> None:
    snapshot = world()
    samples = encode(snapshot, CONFIG)
    train = set(snapshot.samples.filter(pl.col("split") == "train")["item_id"])
    field = samples.tables.vocabulary.named("item.item_id")
    late = samples.tables.current[dense(pl.Series(["i59"]), samples.tables.item_ids)[0]]

    assert "i59" not in train
    assert "i59" not in field.values
    assert int(samples.tables.items.single[late, 0]) == 0
    assert dense(pl.Series(["nobody"]), samples.tables.item_ids).tolist() == [0]


def test_a_run_reads_other_data_with_its_own_vocabulary_and_statistics(world: World) -> None:
    trained = encode(world(seed=1), CONFIG)
    statistics = [text.statistics for text in trained.texts]
    again = encode(world(seed=2), CONFIG, vocabulary=trained.tables.vocabulary, statistics=statistics)

    assert again.tables.vocabulary == trained.tables.vocabulary
    assert again.texts[0].statistics is statistics[0]


def test_vectors_of_another_encoder_are_refused(world: World) -> None:
    snapshot = world()
    statistics = [replace(text.statistics, encoder="another") for text in encode(snapshot, CONFIG).texts]
    with pytest.raises(StoreError, match=r"encoded by test encoder, but .* trained on vectors of another"):
        encode(snapshot, CONFIG, statistics=statistics)
    with pytest.raises(StoreError, match="needs feature set 'item_knowledge'"):
        encode(replace(snapshot, features={}), CONFIG, statistics=statistics)


def test_a_feature_set_that_no_training_row_finds_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="no training row has a vector of feature set 'item_knowledge'"):
        encode(world(missing=1.0), CONFIG)


def test_a_history_shows_items_as_they_were_known_then(world: World) -> None:
    """An item whose text changes at time 500 is two versions: old in old histories and labels, new later."""
    snapshot = world()
    feature = snapshot.features["item_knowledge"]
    old = feature.rows.filter(pl.col("entity_id") == "i3")
    other = int(feature.rows.filter(pl.col("entity_id") == "i4")["vector_row"][0])
    new = old.with_columns(as_of=pl.lit(500, pl.Int64), vector_row=pl.lit(other, pl.Int32))
    changed = replace(feature, rows=pl.concat([feature.rows, new]).sort("entity_id", "as_of"))
    labels = snapshot.samples.drop("item_knowledge_row", "user_preference_row")
    samples = encode(
        replace(snapshot, samples=join_as_of(labels, changed), features={"item_knowledge": changed}), CONFIG
    )
    tables = samples.tables
    row = dense(pl.Series(["i3"]), tables.item_ids)[0]
    (versions,) = np.nonzero(tables.item_of == row)
    first, second = int(old["vector_row"][0]) + 1, other + 1
    acted = snapshot.dataset.interactions.with_columns(version=pl.Series(tables.item.numpy()[:-1]))
    asked = snapshot.samples.with_columns(version=pl.Series(samples.item.numpy()))
    for frame in (acted, asked):
        for when, version in frame.filter(pl.col("item_id") == "i3").select("timestamp", "version").rows():
            assert int(tables.items.text[version, 0]) == (second if when > 500 else first)

    assert sorted(tables.items.text[versions, 0].tolist()) == sorted([first, second])
    assert int(tables.items.text[int(tables.current[row]), 0]) == second
    assert len(tables.item_of) == 1 + 60 + 1


def test_whitened_texts_are_uncorrelated_over_training_rows(world: World) -> None:
    """Both sets share one whitening: the mean of their covariances becomes the identity, whatever is left out."""
    snapshot = world()
    train = snapshot.samples.filter(pl.col("split") == "train")
    texts = encode(snapshot, CONFIG).texts
    few = encode(snapshot, CONFIG.model_copy(update={"text_dimensions": 3})).texts

    covariances = []
    for text in texts:
        seen = np.unique(train[f"{text.name}_row"].to_numpy() + 1)
        covariances.append(np.cov(text.vectors[seen[seen > 0]].numpy(), rowvar=False, bias=True))
    assert np.abs(np.mean(covariances, axis=0) - np.eye(8)).max() < 1e-4
    for wide, narrow in zip(texts, few, strict=True):
        np.testing.assert_allclose(wide.vectors[:, :3], narrow.vectors, atol=1e-6)  # products may differ in rounding
        assert not wide.vectors[0].any()


def test_whitening_hears_a_quiet_fact(world: World) -> None:
    """A fact told at a hundredth of the loudness of the others tells items apart as well as they do; noise does not."""
    snapshot = world()
    feature = snapshot.features["item_knowledge"]
    rng = np.random.default_rng(0)
    facts = rng.integers(0, 2, (len(feature.vectors), 3)) * np.array([1.0, 1.0, 0.01])
    told = np.pad(facts, ((0, 0), (0, 5))).astype(np.float32)
    samples = encode(replace(snapshot, features={"item_knowledge": replace(feature, vectors=told)}), CONFIG)

    (text,) = samples.texts
    assert text.statistics.kept == 3
    quiet = facts[:, 2] > 0
    gap = text.vectors[1:].numpy()[quiet].mean(axis=0) - text.vectors[1:].numpy()[~quiet].mean(axis=0)
    assert np.linalg.norm(gap) > 1


def test_components_that_are_not_whitened_keep_their_shares(world: World) -> None:
    """Uncorrelated over training rows too, in the order of their variance, whose mean is 1; the axes are the same."""
    snapshot = world()
    feature = snapshot.features["item_knowledge"]
    train = snapshot.samples.filter(pl.col("split") == "train")
    (whitened,), (turned,) = (fit_statistics([feature], train, dimensions=4, whiten=whiten) for whiten in (True, False))

    seen = train["item_knowledge_row"].unique()
    vectors = (feature.vectors[seen.filter(seen >= 0).to_numpy()] - turned.mean) @ turned.components
    covariance = np.cov(vectors, rowvar=False, bias=True)
    variance = np.diag(covariance)
    assert np.abs(covariance - np.diag(variance)).max() < 1e-4
    assert variance.mean() == pytest.approx(1, abs=1e-4)
    assert list(variance) == sorted(variance, reverse=True)
    np.testing.assert_allclose(turned.components / np.sqrt(variance), whitened.components, rtol=1e-3)
