"""What every model of the zoo must do, whoever wrote it: parametrised over the folder."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from ctr_models import zoo
from ctr_models.adaptors import hybrid_experts
from ctr_models.model import CTRModel
from ctr_models.samples import Batch, SampleConfig, Samples, encode
from ctr_models.tables import Tables
from storage import plugins
from tests.ctr_models.conftest import make_world, without_features

KINDS = plugins.available(zoo)
ADDITIVE = [kind for kind in KINDS if plugins.load(zoo, kind).Config.additive]
TEXT = ("with text", "without text")


@cache
def samples(text: str = "with text", missing: float = 0.1, max_history: int = 9) -> Samples:
    snapshot = make_world(missing=missing)
    if text == "without text":
        snapshot = without_features(snapshot)
    return encode(snapshot, SampleConfig(max_history=max_history))


def make(kind: str, data: Samples, *, seed: int = 0, **options: object) -> CTRModel:
    torch.manual_seed(seed)
    config = plugins.load(zoo, kind).Config(**options)
    statistics = [text.statistics for text in data.texts]
    model = CTRModel(kind, config, data.tables.vocabulary, statistics, hybrid_experts.Config(scale=1.0))
    model.text.fit_scale(data.similarity)
    model.table.data[1:] *= 30  # as after training: every field must matter
    return model.eval()


def logits(model: CTRModel, data: Samples, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(batch, {text.name: text.vectors for text in data.texts})


def untold(batch: Batch) -> Tables:
    """The same items without a text."""
    items = batch.tables.items
    return replace(batch.tables, items=replace(items, text=torch.zeros_like(items.text)))


def test_the_zoo_is_its_folder() -> None:
    assert {"lr", "fm", "deepfm", "dcnv2", "din", "sim"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_config_is_strict_and_round_trips(kind: str) -> None:
    config = plugins.load(zoo, kind).Config

    assert config(**config().model_dump(mode="json")) == config()
    with pytest.raises(ValidationError):
        config(no_such_option=1)
    with pytest.raises(ValidationError):
        config(learning_rate=0)


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_it_overfits_a_batch(kind: str, text: str) -> None:
    data = samples(text)
    places = data.split["train"][:256]
    batch, labels = data.batch(places), data.label[places]
    torch.manual_seed(0)
    statistics = [t.statistics for t in data.texts]
    model = CTRModel(kind, plugins.load(zoo, kind).Config(), data.tables.vocabulary, statistics)
    model.text.fit_scale(data.similarity)
    vectors = {t.name: t.vectors for t in data.texts}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = torch.tensor(torch.inf)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch, vectors), labels)
        if loss.item() < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrong = ((logits(model.eval(), data, batch) > 0) != (labels > 0)).sum()

    if kind in ADDITIVE:
        assert loss.item() < 0.4  # what a sum over fields can say of these rows
    else:
        assert loss.item() < 0.05
        assert int(wrong) <= 2
    assert (model.table[0] == 0).all()  # padding stays nothing


@pytest.mark.parametrize("kind", ADDITIVE)
def test_a_model_that_says_it_is_additive_is(kind: str) -> None:
    data = samples("without text")
    batch = data.batch(data.split["train"][:256])
    model = make(kind, data)
    of = {
        (user, item): logits(
            model, data, replace(batch, user_B=batch.user_B.roll(user), item_B=batch.item_B.roll(item))
        )
        for user in (0, 1)
        for item in (0, 1)
    }

    torch.testing.assert_close(of[0, 0] + of[1, 1], of[0, 1] + of[1, 0])  # who likes what cannot be said
    assert (of[0, 0] - of[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_a_score(kind: str, text: str) -> None:
    short, long = samples(text, max_history=200), samples(text, max_history=260)
    places = short.split["test"][:50]
    model = make(kind, short)

    torch.testing.assert_close(
        logits(model, short, short.batch(places)), logits(model, long, long.batch(places)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_do_not_see_each_other(kind: str, text: str) -> None:
    data = samples(text)
    places = data.split["test"][:64]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    model = make(kind, data)
    together = logits(model, data, data.batch(places))

    torch.testing.assert_close(together[order], logits(model, data, data.batch(places[order])), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[:1], logits(model, data, data.batch(places[:1])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_candidates_of_one_user_may_share_all_but_the_item(kind: str, text: str) -> None:
    data = samples(text)
    batch = data.batch(data.split["test"][:64])
    one = {
        name: getattr(batch, name)[:1]
        for name in ("user_B", "history_BL", "rating_BL", "liked_BL", "context_BC", "user_text_BT")
    }
    repeated = {name: value.expand(64, *value.shape[1:]) for name, value in one.items()}
    model = make(kind, data)

    torch.testing.assert_close(
        logits(model, data, replace(batch, **one)),
        logits(model, data, replace(batch, **repeated)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_it_is_given_changes_the_score(kind: str, text: str) -> None:
    data = samples(text, missing=0.0)
    batch = data.batch(data.split["test"][:64])
    model = make(kind, data)
    before = logits(model, data, batch)
    changed = {
        "user_B": batch.user_B.roll(1),
        "item_B": batch.item_B.roll(1),
        "history_BL": batch.history_BL.roll(1, dims=0) * (batch.history_BL != 0),
        "liked_BL": ~batch.liked_BL & (batch.history_BL != 0),
        "context_BC": batch.context_BC.roll(1, dims=0),
    }
    if text == "with text":
        changed |= {
            "user_text_BT": batch.user_text_BT.roll(1, dims=0),
            "similarity_BS": batch.similarity_BS.roll(1, dims=0),
            "tables": untold(batch),
        }
    for name, value in changed.items():
        after = logits(model, data, replace(batch, **{name: value}))

        assert (after - before).abs().max() > 1e-6, name


@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_unknown_ids_and_an_empty_history_have_a_score(kind: str, text: str) -> None:
    data = samples(text)
    batch = data.batch(data.split["test"][:8])
    nothing = replace(
        batch,
        user_B=torch.zeros_like(batch.user_B),
        item_B=torch.zeros_like(batch.item_B),
        history_BL=torch.zeros_like(batch.history_BL),
        rating_BL=torch.zeros_like(batch.rating_BL),
        liked_BL=torch.zeros_like(batch.liked_BL),
        context_BC=torch.zeros_like(batch.context_BC),
        user_text_BT=torch.zeros_like(batch.user_text_BT),
        similarity_BS=torch.full_like(batch.similarity_BS, torch.nan),
    )
    scores = logits(make(kind, data), data, nothing)

    assert scores.isfinite().all()
    torch.testing.assert_close(scores, scores[:1].expand(8))


@pytest.mark.parametrize("missing", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_a_case_like_any_other(kind: str, missing: float) -> None:
    data = samples(missing=0.1)
    batch = data.batch(data.split["test"][:64])
    if missing:
        batch = replace(
            batch,
            tables=untold(batch),
            user_text_BT=torch.zeros_like(batch.user_text_BT),
            similarity_BS=torch.full_like(batch.similarity_BS, torch.nan),
        )
    scores = logits(make(kind, data), data, batch)

    assert scores.isfinite().all()
    assert len(scores.unique()) > 50  # ids and histories still tell rows apart


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_tables_give_the_scores_of_vectors(kind: str) -> None:
    data = samples()
    batch = data.batch(data.split["test"][:64])
    vectors = {text.name: text.vectors for text in data.texts}
    model = make(kind, data)
    with torch.inference_mode():
        stored = model(batch, vectors, prepared=model.prepare(data.tables, vectors))

    torch.testing.assert_close(stored, logits(model, data, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: str) -> None:
    data = samples()
    model = make(kind, data).train()
    places = data.split["train"][:256]
    model(data.batch(places), {t.name: t.vectors for t in data.texts}).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]

    assert still == []


def test_dense_ids_follow_the_tables_not_the_order_of_rows() -> None:
    snapshot = make_world()
    data = samples(missing=0.0)
    shuffled = snapshot.dataset.items.sample(fraction=1, shuffle=True, seed=4)
    again = encode(replace(snapshot, dataset=replace(snapshot.dataset, items=shuffled)), data.config)

    assert data.tables.item_ids.equals(again.tables.item_ids)
    assert data.tables.item_ids.to_list() == sorted(data.tables.item_ids)
    assert np.array_equal(data.item, again.item)
    assert isinstance(data.tables.item_ids, pl.Series)
