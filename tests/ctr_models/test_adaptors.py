"""What every adaptor must do, parametrised over the folder; and each computes what its docstring says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ctr_models import adaptors
from ctr_models.adaptors import AdaptorConfig, Texts, attention, hybrid_experts, linear, mlp, moe
from ctr_models.evaluate import compare, evaluation
from ctr_models.model import CTRModel
from ctr_models.runs import load_run, save_run
from ctr_models.samples import Batch, SampleConfig, Samples, encode
from ctr_models.text import TextStatistics
from ctr_models.train import TrainConfig, fit, score
from ctr_models.zoo import deepfm, din
from storage import plugins
from tests.ctr_models.conftest import make_world, without_features

KINDS = plugins.available(adaptors)
NETWORKS = {"deepfm": deepfm.Config(), "din": din.Config()}
SHARES = (0.0, 0.1, 0.5, 1.0)
WIDTH, DIM = 5, 7


@pytest.fixture(scope="module")
def data() -> Samples:
    return encode(make_world(missing=0.1), SampleConfig(max_history=9))


def make(data: Samples, config: AdaptorConfig, *, network: str = "din") -> CTRModel:
    torch.manual_seed(0)
    statistics = [text.statistics for text in data.texts]
    model = CTRModel(network, NETWORKS[network], data.tables.vocabulary, statistics, config)
    model.text.fit_scale(data.similarity)
    with torch.no_grad():
        model.table[1:] *= 30  # as after training: every field must matter
        for parameter in model.text.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def config_of(kind: str, **options: object) -> AdaptorConfig:
    return plugins.load(adaptors, kind).Config(**options)


def vectors_of(data: Samples) -> dict[str, Tensor]:
    return {text.name: text.vectors for text in data.texts}


def less_text(batch: Batch, share: float) -> Batch:
    """A share of the items, and of the rows' users, without a text."""
    draw = torch.Generator().manual_seed(1)
    items = batch.tables.items
    kept = torch.rand(items.text.shape, generator=draw) >= share
    tables = replace(batch.tables, items=replace(items, text=items.text * kept))
    told = torch.rand(batch.user_text_BT.shape, generator=draw) >= share
    silent = torch.rand(batch.similarity_BS.shape, generator=draw) < share
    similarity = batch.similarity_BS.masked_fill(silent, torch.nan)
    return replace(batch, tables=tables, user_text_BT=batch.user_text_BT * told, similarity_BS=similarity)


def test_the_adaptors_are_their_folder() -> None:
    assert {"hybrid_experts", "moe", "mlp", "linear", "attention"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_the_configuration_chooses_it_and_round_trips(kind: str) -> None:
    train = TrainConfig.model_validate({"text": {"kind": kind, "scale": 0.5}})

    assert train.text == config_of(kind, scale=0.5)
    assert train.text.kind == kind
    assert TrainConfig(**train.model_dump(mode="json")) == train


def test_a_configuration_without_a_kind_is_the_hybrid_experts() -> None:
    assert TrainConfig().text == hybrid_experts.Config()
    text = {"shared_experts": 3, "dedicated_experts": 1, "similarities": False}  # as runs of 0.1.0 say it

    assert TrainConfig.model_validate({"text": text}).text == hybrid_experts.Config(
        shared_experts=3, dedicated_experts=1, similarities=False
    )


def test_what_cannot_be_chosen_is_refused_with_what_can() -> None:
    with pytest.raises(ValidationError, match=r"no 'nothing' in ctr_models.*; there are: attention, hybrid_experts"):
        TrainConfig.model_validate({"text": {"kind": "nothing"}})
    with pytest.raises(ValidationError, match="unknown key 'experts'; allowed are kind, similarities"):
        TrainConfig.model_validate({"text": {"kind": "linear", "experts": 2}})
    with pytest.raises(ValidationError, match=r"scale: Input should be greater than 0 \(got -1\)"):
        TrainConfig.model_validate({"text": {"kind": "moe", "scale": -1}})
    with pytest.raises(ValidationError, match="kind must be a word, not 3"):
        TrainConfig.model_validate({"text": {"kind": 3}})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_share_of_texts_may_be_missing(data: Samples, kind: str, network: str) -> None:
    model = make(data, config_of(kind), network=network)
    batch, vectors = data.batch(data.split["train"][:200]), vectors_of(data)
    whole = model(batch, vectors).detach()
    change = []
    for share in SHARES:
        model.zero_grad()
        scores = model(less_text(batch, share), vectors)
        scores.square().sum().backward()
        change.append(float((scores.detach() - whole).abs().mean()))

        assert scores.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert change == sorted(change)
    assert change[0] == 0
    assert change[1] < 0.6 * change[3]  # a little missing is a little change


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_text_is_not_read(data: Samples, kind: str) -> None:
    model = make(data, config_of(kind)).eval()
    batch = less_text(data.batch(data.split["test"][:50]), 1.0)
    others = {name: torch.cat([v[:1], torch.randn(v[1:].shape) * 9]) for name, v in vectors_of(data).items()}
    with torch.inference_mode():
        assert torch.equal(model(batch, vectors_of(data)), model(batch, others))


@pytest.mark.parametrize("network", NETWORKS)
def test_without_a_feature_set_all_are_the_base_model(network: str) -> None:
    base = encode(without_features(make_world()), SampleConfig(max_history=9))
    batch = base.batch(base.split["test"][:50])
    models = [make(base, config_of(kind), network=network).eval() for kind in KINDS]
    with torch.inference_mode():
        first, *others = [model(batch, {}) for model in models]

    assert not list(models[0].text.parameters())
    for other in others:
        assert torch.equal(first, other)


@pytest.mark.parametrize("similarities", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_similarities_are_to_be_had_with_each(data: Samples, kind: str, similarities: bool) -> None:
    model = make(data, config_of(kind, similarities=similarities)).eval()
    batch = data.batch(data.split["test"][:50])
    with torch.inference_mode():
        turned = model(replace(batch, similarity_BS=batch.similarity_BS.roll(1, dims=0)), vectors_of(data))
        changed = (turned - model(batch, vectors_of(data))).abs().max() > 1e-6

    assert changed == similarities


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_projection_similarities_are_all(data: Samples, kind: str) -> None:
    model = make(data, config_of(kind, projection=False)).eval()
    batch = data.batch(data.split["test"][:50])
    with torch.inference_mode():
        assert torch.equal(model(batch, vectors_of(data)), model(batch, {n: -v for n, v in vectors_of(data).items()}))
    assert model.text.n_fields == 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_prepared_tables_give_the_scores_of_vectors(data: Samples, kind: str, network: str) -> None:
    model, vectors = make(data, config_of(kind), network=network).eval(), vectors_of(data)
    batch = data.batch(data.split["test"][:64])
    with torch.inference_mode():
        stored = model(batch, vectors, prepared=model.prepare(data.tables, vectors))
        alone = model(data.batch(data.split["test"][:1]), vectors)

        torch.testing.assert_close(stored, model(batch, vectors), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stored[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(data: Samples, kind: str) -> None:
    model = make(data, config_of(kind)).train()
    model(data.batch(data.split["train"][:400]), vectors_of(data)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]

    assert still == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_run_has_its_adaptor(tmp_path: Path, kind: str) -> None:
    snapshot = make_world()
    config = TrainConfig(batch_size=512, epochs=1, samples=SampleConfig(max_history=6), text=config_of(kind))
    samples = encode(snapshot, config.samples)
    run = fit(samples, kind="deepfm", options=deepfm.Config(), config=config)
    save_run(tmp_path, kind, run)
    read = load_run(tmp_path, kind)

    assert read.config == run.config
    assert np.array_equal(score(run.model, samples, "test"), score(read.model, samples, "test"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_text_tells_about_cold_items(kind: str) -> None:
    snapshot = make_world(users=150, items=200, rows=15_000)
    config = TrainConfig(batch_size=128, epochs=6, threads=1, text=config_of(kind, similarities=False))
    results = []
    for features in (snapshot, without_features(snapshot)):
        run = fit(encode(features, config.samples), kind="din", options=din.Config(), config=config)
        results.append(evaluation(features, score(run.model, encode(features, config.samples), "test")))
    gain = compare(results[1], results[0])["cold_items"]

    assert gain.low > 0.1, gain


def statistics(*named: tuple[str, str]) -> list[TextStatistics]:
    mean, components = np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32)
    return [TextStatistics(name, entity, "one", mean, components) for name, entity in named]


BOTH = statistics(("taste", "user"), ("plot", "item"))


def test_hybrid_experts_are_kars() -> None:
    torch.manual_seed(0)
    adaptor = hybrid_experts.Adaptor(hybrid_experts.Config(hidden=4, out=3), BOTH, WIDTH)
    vectors = torch.randn(6, DIM)
    side = adaptor.sides["plot"]
    experts = [
        (
            (vectors[1:] @ part.first.weight[4 * e : 4 * e + 4].t() + part.first.bias[4 * e : 4 * e + 4]).relu()
            @ part.second[e]
        ).relu()
        for part in (side.experts, adaptor.shared[f"dim{DIM}"])
        for e in range(2)
    ]
    weight = (vectors[1:] @ side.gate.weight.t() + side.gate.bias).softmax(dim=1)
    mixed = sum(weight[:, e : e + 1] * expert for e, expert in enumerate(experts))
    found = adaptor.adapt("plot", vectors)

    torch.testing.assert_close(found[1:], 2 * (mixed @ side.project.weight.t() + side.project.bias))
    assert (found[0] == side.absent).all()


def test_a_mixture_treats_users_and_items_alike() -> None:
    torch.manual_seed(0)
    adaptor, vectors = moe.Adaptor(moe.Config(), BOTH, WIDTH), torch.randn(6, DIM)
    adaptor.sides["taste"].load_state_dict(adaptor.sides["plot"].state_dict())

    assert torch.equal(adaptor.adapt("taste", vectors), adaptor.adapt("plot", vectors))
    assert len(adaptor.mixtures) == 1


def test_linear_is_a_matrix_and_mlp_has_one_hidden_layer() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(6, DIM)
    flat, deep = linear.Adaptor(linear.Config(scale=1), BOTH, WIDTH), mlp.Adaptor(mlp.Config(scale=1), BOTH, WIDTH)
    matrix, layers = flat.sides["plot"].project, deep.sides["plot"].project
    hidden = (vectors[1:] @ layers[0].weight.t() + layers[0].bias).relu()

    torch.testing.assert_close(flat.adapt("plot", vectors)[1:], vectors[1:] @ matrix.weight.t() + matrix.bias)
    torch.testing.assert_close(deep.adapt("plot", vectors)[1:], hidden @ layers[2].weight.t() + layers[2].bias)


def test_attention_is_written_out_in_its_docstring() -> None:
    torch.manual_seed(0)
    config = attention.Config(key_size=4)
    adaptor = attention.Adaptor(config, BOTH, WIDTH)
    assert torch.equal(adaptor.key["encoder0"].weight, torch.eye(4, DIM))  # the first components
    for parameter in adaptor.requires_grad_(False).parameters():
        parameter.data += torch.randn(parameter.shape) * 0.3
    told = torch.tensor([0, 1, 2, 0, 3, 4])  # item 3 has no text; row 0 is padding
    items = adaptor.adapt("plot", torch.cat([torch.zeros(1, DIM), torch.randn(4, DIM)]))[told]
    users = adaptor.adapt("taste", torch.cat([torch.zeros(1, DIM), torch.randn(2, DIM)]))[torch.tensor([1, 0, 2, 1])]
    history = torch.tensor([[1, 4, 5, 3, 0], [2, 3, 0, 0, 0], [4, 1, 0, 0, 0], [0] * 5], dtype=torch.int32)
    liked = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]).bool()
    target = torch.tensor([2, 5, 3, 4], dtype=torch.int32)
    found = adaptor.relate(Texts({"plot": items}, target, history, liked, {"taste": users}))
    (of_items, match), keys = (adaptor.attention["plot"], adaptor.match[0]), items[:, WIDTH:]
    expected = [[] for _ in range(4)]
    for b in range(4):
        seen = [p for p in range(5) if history[b, p] not in (0, 3) and target[b] != 3]
        weight = {p: float((of_items.sharpness.exp() * (keys[history[b, p]] @ keys[target[b]])).exp()) for p in seen}
        for place, chosen in enumerate((liked[b], ~liked[b])):
            mine = [p for p in seen if chosen[p]]
            mean = sum((weight[p] * items[history[b, p], :WIDTH] for p in mine), torch.zeros(WIDTH))
            expected[place].append(mean / sum(weight[p] for p in mine) if mine else of_items.absent[place])
        likes = [p for p in seen if liked[b, p]]
        if seen:
            vote = sum(weight[p] for p in likes) / sum(weight.values()) - len(likes) / len(seen)
            expected[2].append(of_items.vote(torch.tensor([vote])))
        else:
            expected[2].append(of_items.absent[2])
        there = b != 1 and target[b] != 3
        expected[3].append(match.project(users[b, WIDTH:] * keys[target[b]]) if there else match.absent)

    assert len(found) == adaptor.n_relations == 4
    assert keys[1].norm() == pytest.approx(1)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs))


def test_texts_of_different_encoders_are_not_compared() -> None:
    plot, taste = statistics(("plot", "item"), ("taste", "user"))
    adaptor = attention.Adaptor(attention.Config(), [plot, replace(taste, encoder="another")], WIDTH)

    assert adaptor.n_relations == 3
    assert len(adaptor.key) == 2
