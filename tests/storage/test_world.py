"""Does the demonstration world hold what it promises: planted taste, silent titles, late items, the same bytes?"""

import hashlib

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from storage.datasets import world
from storage.ingest import ingest

CONFIG = world.Config()
HASH = "aa2c84701c127d0e6a79efa744f09f68a030f1faa30590c289a00113a8d14f2d"


@pytest.fixture(scope="module")
def items() -> world.Items:
    return world.draw_items(CONFIG)


@pytest.fixture(scope="module")
def users() -> world.Users:
    return world.draw_users(seed=CONFIG.seed, users=CONFIG.users)


@pytest.fixture(scope="module")
def rows(items: world.Items, users: world.Users) -> pl.DataFrame:
    return world.simulate(items, users, seed=CONFIG.seed).sort("timestamp", maintain_order=True)


def test_same_seed_same_bytes(rows: pl.DataFrame) -> None:
    """Only exact arithmetic is used, so this hash holds on every machine; another seed is another world."""
    numbers = rows.sort("user", "timestamp").select("user", "item", "rating", "timestamp").to_numpy()
    texts = "\n".join(world.encyclopedia(CONFIG)["text"])

    assert hashlib.sha256(numbers.astype("<i8").tobytes() + texts.encode()).hexdigest() == HASH
    assert set(world.encyclopedia(CONFIG)["title"]) != set(world.encyclopedia(world.Config(seed=8))["title"])


def test_size_and_balance(rows: pl.DataFrame) -> None:
    per_user = rows.group_by("user").len()["len"]

    assert 57_000 < len(rows) < 63_000
    assert set(range(CONFIG.users)) == set(rows["user"])
    assert per_user.min() >= 10
    assert per_user.max() <= 210
    assert 0.5 < (rows["rating"] > 3).mean() < 0.65
    assert {1, 2, 3, 4, 5} == set(rows["rating"])
    assert not rows.select("user", "item").is_duplicated().any()


def test_every_row_passes_ingest() -> None:
    ingested = ingest("world", {})

    assert len(ingested.quarantine) == 0
    assert ingested.n_rows_read == len(ingested.dataset.interactions)
    assert ingested.dataset.domain == "world"
    assert ingested.dataset.attributes("item") == []
    assert ingested.dataset.attributes("user") == ["region", "age"]


def test_a_tenth_of_the_items_comes_out_late(items: world.Items, rows: pl.DataFrame) -> None:
    """Nearly all that is known of them lies in the last fifth of the interactions, enough to measure."""
    late = items.cold[rows["item"].to_numpy()]
    cut = int(0.8 * len(rows))

    assert CONFIG.items // 10 == items.cold.sum()
    assert late[:cut].sum() < 0.1 * late.sum()
    assert late[cut:].sum() > 1500
    assert set(np.flatnonzero(items.cold)) == set(rows["item"].to_numpy()[late])
    released = items.released[rows["item"].to_numpy()] * world.YEAR + world.START
    assert (rows["timestamp"].to_numpy() >= np.floor(released)).all()


def test_traits_decide_and_an_oracle_sees_it(items: world.Items, users: world.Users, rows: pl.DataFrame) -> None:
    user, item = rows["user"].to_numpy(), rows["item"].to_numpy()
    liked = rows["rating"].to_numpy() > 3
    oracle = world.true_preference(items, users)[user, item]
    late = items.cold[item]

    assert roc_auc_score(liked, oracle) > 0.85
    assert roc_auc_score(liked[late], oracle[late]) > 0.85
    assert roc_auc_score(liked, items.quality[item]) < 0.70

    wrong = world.true_preference(items, users)[np.random.default_rng(0).permutation(CONFIG.users)][user, item]
    assert roc_auc_score(liked, wrong) < 0.70


def test_titles_are_unique_and_tell_nothing(items: world.Items) -> None:
    """The commonest trait among items that share a title word is no better than a guess for the item itself."""
    values = {value.lower() for of_factor in world.FACTORS.values() for value in of_factor}

    assert CONFIG.items == len(set(items.titles))
    assert not values & {word.lower() for title in items.titles for word in title.split()}
    words = np.array([title.split() for title in items.titles])
    for factor, of_factor in enumerate(world.FACTORS.values()):
        traits, right = items.traits[:, factor], 0
        for k in range(CONFIG.items):
            kin = (words == words[k]).any(axis=1)
            kin[k] = False
            votes = np.bincount(traits[kin], minlength=len(of_factor))
            right += votes[traits[k]] == votes.max() and votes.max() > 0 and (votes == votes.max()).sum() == 1
        assert right / CONFIG.items < 0.2


def test_the_encyclopedia_states_every_trait(items: world.Items) -> None:
    pages = world.encyclopedia(CONFIG)

    assert items.titles == pages["title"].to_list()
    for text, title, traits in zip(pages["text"], items.titles, items.traits, strict=True):
        assert title in text
        assert all(value in text for value in world.named_traits(traits).values())
    assert len(set(pages["text"].str.slice(-20))) > 4


def test_attributes_of_users_say_nothing_of_taste(users: world.Users) -> None:
    for attribute, n in ((users.region, len(world.REGIONS)), (users.age, len(world.AGES))):
        means = np.array([users.taste[attribute == value].mean(axis=0) for value in range(n)])
        assert np.abs(means - means.mean(axis=0)).max() < 0.25


def test_users_of_another_seed_are_others() -> None:
    apart = world.draw_users(seed=CONFIG.seed + 1, users=CONFIG.users)

    assert not np.isclose(apart.leaning, world.draw_users(seed=CONFIG.seed, users=CONFIG.users).leaning).any()
