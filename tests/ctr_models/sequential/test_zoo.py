"""What every sequential model must do, whoever wrote it: parametrised over the folder, with and without text."""

from functools import cache

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ctr_models.sequential import losses, zoo
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.metrics import hits
from ctr_models.sequential.model import Batch, ModelScorer, SequentialModel, trainable, training_batch
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.reduction import ItemInit, fit_reduction
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.text import reduced
from ctr_models.sequential.train import TrainConfig, fit
from storage import plugins
from tests.ctr_models.sequential.conftest import N_ITEMS, make_histories, make_sequences, make_text

KINDS = plugins.available(zoo)
INITS = {
    "without text": None,
    "with text": ItemInit(feature_set="item_knowledge"),
    "frozen text and ids": ItemInit(feature_set="item_knowledge", whiten=True, trainable=False, id_width=8),
}
WIDTH, LENGTH = 16, 12


@cache
def text_of(init: str) -> ItemText | None:
    config, data = INITS[init], make_sequences()
    if config is None:
        return None
    text = make_text(data)
    learned = np.flatnonzero(text.known[: N_ITEMS + 1])
    return reduced(text, fit_reduction(config, text.vectors[learned], width=WIDTH))


def make(kind: str, init: str, *, seed: int = 0, large: float = 10) -> SequentialModel:
    """large: factor on all tables, as after training, when everything matters."""
    torch.manual_seed(seed)
    options = plugins.load(zoo, kind).Config(width=WIDTH, dropout=0.0)
    config = INITS[init]
    model = SequentialModel(
        kind,
        options,
        N_ITEMS,
        max_length=LENGTH,
        text=text_of(init),
        text_trainable=config is None or config.trainable,
    )
    for name, value in model.named_parameters():
        if name.startswith("items.") or "places" in name or name == "hidden":
            value.data *= large
    return model.eval()


def scorer(kind: str, init: str) -> ModelScorer:
    return ModelScorer(make(kind, init), make_sequences().n_items, text_of(init))


both = pytest.mark.parametrize("init", INITS)
every = pytest.mark.parametrize("kind", KINDS)


def test_the_zoo_is_its_folder() -> None:
    assert set(KINDS) == {"sasrec", "bert4rec", "gru4rec", "item_llama"}


@every
def test_config_is_strict_and_round_trips(kind: str) -> None:
    config = plugins.load(zoo, kind).Config

    assert config(**config().model_dump(mode="json")) == config()
    for wrong in ({"no_such_option": 1}, {"learning_rate": 0}, {"dropout": 1.0}):
        with pytest.raises(ValidationError):
            config(**wrong)


@both
@every
def test_it_overfits_64_sequences(kind: str, init: str) -> None:
    """Trained on whole sequences, it must find the last item of each from the others."""
    data = make_sequences()
    model = make(kind, init, large=1).train()
    history, places = trainable(data.train, model.objective, LENGTH)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    random = np.random.default_rng(0)
    for _ in range(150 if model.objective == "next_item" else 250):
        batch = training_batch(model, history, places, random, hidden_share=0.5)
        loss = model.loss(batch, losses.Softmax()) / (batch.target_BL > 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ranks = rank(ModelScorer(model, data.n_items, text_of(init)), data.queries["test"]).ranks

    assert hits(ranks, 3).mean() > 0.9
    assert (model.items.weight()[0] == 0).all()  # padding stays nothing


@both
@every
def test_padding_changes_nothing(kind: str, init: str) -> None:
    histories = make_histories(many=20)
    model = scorer(kind, init)
    together = model.scores(histories)
    alone = np.concatenate([model.scores(histories.take(np.array([q]))) for q in range(20)])

    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@both
@every
def test_permuting_a_batch_permutes_the_output(kind: str, init: str) -> None:
    histories = make_histories(many=20)
    order = np.random.default_rng(5).permutation(20)
    model = scorer(kind, init)

    np.testing.assert_allclose(
        model.scores(histories)[order], model.scores(histories.take(order)), rtol=1e-4, atol=1e-4
    )


@every
def test_a_causal_model_sees_no_future_and_the_other_sees_all(kind: str) -> None:
    model = make(kind, "without text")
    item_BL, length_B = make_histories(many=8).rectangle(np.arange(8))
    changed = item_BL.clone()
    last = (torch.arange(8), length_B - 1)
    changed[last] = changed[last] % N_ITEMS + 1
    with torch.inference_mode():
        table = model.items.weight()
        before, after = (model.states(some, length_B, None, table) for some in (item_BL, changed))
    moved = (before - after).abs().amax(dim=2) > 1e-5

    assert moved[last].all()
    assert bool(moved[:, 0].any()) == (model.objective == "masked_item")


@both
@pytest.mark.parametrize("kind", [kind for kind in KINDS if plugins.load(zoo, kind).OBJECTIVE == "masked_item"])
def test_hidden_items_are_not_seen(kind: str, init: str) -> None:
    model = make(kind, init)
    history, places = trainable(make_histories(many=8), model.objective, LENGTH)
    batch = training_batch(model, history, places, np.random.default_rng(0), hidden_share=0.5)
    assert batch.hidden_BL is not None
    others = torch.where(batch.hidden_BL, batch.item_BL % N_ITEMS + 1, batch.item_BL)
    with torch.inference_mode():
        seen = model.states(batch.item_BL, batch.length_B, batch.hidden_BL, model.items.weight())
        unseen = model.states(others, batch.length_B, batch.hidden_BL, model.items.weight())

    torch.testing.assert_close(seen, unseen)
    assert torch.equal(batch.target_BL > 0, batch.hidden_BL)
    assert batch.hidden_BL.any(dim=1).all()


@both
@every
def test_unknown_items_are_passed_over(kind: str, init: str) -> None:
    model = scorer(kind, init)
    strange = N_ITEMS + 500
    known = model.scores(Histories.of([[1, 2, 3]]))

    np.testing.assert_allclose(model.scores(Histories.of([[strange, 1, 2, strange, 3]])), known, rtol=1e-5)
    assert np.isfinite(model.scores(Histories.of([[], [strange]]))[:, 1 : N_ITEMS + 1]).all()


@every
def test_cold_items_are_recommended_by_their_text_only(kind: str) -> None:
    cold = slice(N_ITEMS + 1, None)
    history = Histories.of([[1, 2, 3]])

    assert np.isneginf(scorer(kind, "without text").scores(history)[:, cold]).all()
    for init in ("with text", "frozen text and ids"):
        assert np.isfinite(scorer(kind, init).scores(history)[:, cold]).all()
        with_cold, without = (
            scorer(kind, init).scores(Histories.of([one]))[:, 1:] for one in ([1, 2, N_ITEMS + 1], [1, 2])
        )
        assert np.abs(with_cold - without).max() > 1e-4  # in a history they are read by their text too


@both
@every
def test_every_parameter_learns_and_row_0_does_not(kind: str, init: str) -> None:
    model = make(kind, init).train()
    history, places = trainable(make_histories(), model.objective, LENGTH)
    batch = training_batch(model, history, places, np.random.default_rng(0), hidden_share=0.3)
    model.loss(batch, losses.Softmax()).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    tables = [p for name, p in model.named_parameters() if name.startswith("items.")]

    assert still == []
    assert all(p.grad is not None and not p.grad[0].any() for p in tables)
    assert ("items.text" in dict(model.named_parameters())) == (init == "with text")


@pytest.mark.parametrize("loss", [losses.Softmax(), losses.SampledSoftmax(negatives=16), losses.GBCE(negatives=16)])
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_it_learns_by_every_loss(kind: str, loss: losses.LossConfig) -> None:
    """One network of each objective: what is learned by predicting and what by filling in."""
    data = make_sequences(many=128)
    options = plugins.load(zoo, kind).Config(width=WIDTH, dropout=0.0, learning_rate=0.01)
    config = TrainConfig(max_length=LENGTH, batch_size=32, epochs=100, evaluate_every=100, threads=1, loss=loss)
    run = fit(data, kind=kind, options=options, config=config)

    assert run.metrics["validation"]["ndcg@10"] > 0.6  # by chance: .17


def empty(batch: Batch) -> bool:
    return not (batch.target_BL > 0).any()


def test_sequences_of_one_item_teach_nothing() -> None:
    history, places = trainable(Histories.of([[1], [1, 2]]), "next_item", LENGTH)
    model = make("sasrec", "without text")

    assert places.tolist() == [1]
    assert not empty(training_batch(model, history, places, np.random.default_rng(0), hidden_share=0))


def test_data_is_not_changed_by_training() -> None:
    data = make_sequences()
    before = data.train.item.copy(), data.counts.copy()
    config = TrainConfig(max_length=LENGTH, epochs=1, threads=1)
    fit(data, kind="sasrec", options=plugins.load(zoo, "sasrec").Config(width=WIDTH), config=config)

    assert isinstance(data, Sequences)
    assert np.array_equal(data.train.item, before[0])
    assert np.array_equal(data.counts, before[1])
