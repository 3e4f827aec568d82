"""Each network computes what its paper says: compared with the formula written out in loops, on small tensors."""

import itertools

import pytest
import torch
from torch import Tensor

from ctr_models.layers import masked_softmax, pairwise_products
from ctr_models.recurrence import GRU
from ctr_models.zoo import Channel, Inputs, Shape, autoint, dcn, dien, fibinet, finalmlp, fm, lr, sim, xdeepfm

B, F, D, L, V, R = 5, 4, 6, 7, 9, 4
NOTHING = torch.zeros(0, 0, dtype=torch.int32)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fields(width: int = D) -> Tensor:
    return torch.randn(B, F, width)


def inputs(width: int = D, *, item_fields: int = 2) -> tuple[Inputs, Shape]:
    """Histories of 0 to L items; the last row's is empty. Fields of the target are the last ones."""
    table, ratings = torch.randn(V, item_fields * width), torch.randn(R, width)
    table[0] = ratings[0] = 0
    length = torch.tensor([L, 3, 1, 5, 0])
    mask = torch.arange(L) < length[:, None]
    rows = torch.randint(1, V, (B, L), dtype=torch.int32) * mask
    rated = torch.randint(1, R, (B, L), dtype=torch.int32) * mask
    target = torch.randint(1, V, (B,), dtype=torch.int32)
    values = torch.randint(0, 6, (V, 3), dtype=torch.int32)
    values[0] = 0
    wide = torch.cat([torch.randn(B, F - item_fields, width), table[target].unflatten(1, (item_fields, width))], dim=1)
    channels = [
        Channel(table, rows, table[target], values, values[target]),
        Channel(ratings, rated, None, NOTHING, NOTHING),
    ]
    shape = Shape(width, F, ((item_fields * width, True), (width, False)))
    return Inputs(wide, channels, mask, (torch.rand(B, L) > 0.5) & mask), shape


def test_pairwise_products_are_all_pairs() -> None:
    x = fields()
    expected = sum((x[:, i] * x[:, j]).sum(dim=1) for i, j in itertools.combinations(range(F), 2))

    torch.testing.assert_close(pairwise_products(x), expected)


def test_masked_softmax_is_softmax_of_what_is_there() -> None:
    scores = (torch.randn(4, 5) * 50).requires_grad_()
    mask = torch.tensor([[True] * 5, [False] * 5, [True, False, True, False, False], [False] * 4 + [True]])
    weight = masked_softmax(scores, mask)
    (weight * torch.randn(4, 5) * 1e3).sum().backward()

    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (weight[1] == 0).all()
    for row in (0, 2, 3):
        torch.testing.assert_close(weight[row, mask[row]], scores[row, mask[row]].softmax(dim=0))
        assert (weight[row, ~mask[row]] == 0).all()


def linear_features(data: Inputs, width: int) -> list[list[Tensor]]:
    """For each row its features with their numbers: fields, and those of the histories, each over its length."""
    table = data.channels[0].table_VE.unflatten(1, (-1, 3, width))
    rows = []
    for b in range(B):
        features = list(data.fields_BFD[b, :, :width])
        for role, chosen in ((1, data.liked_BL[b]), (2, ~data.liked_BL[b] & data.mask_BL[b])):
            items = data.channels[0].rows_BL[b][chosen]
            for field in range(table.shape[1]):
                features.append(
                    sum((table[item, field, role] for item in items), torch.zeros(width)) / max(1, len(items))
                )
        rows.append(features)
    return rows


def test_logistic_regression_is_a_sum_of_weights() -> None:
    data, shape = inputs(3)
    network = lr.Network(lr.Config(), shape)
    network.bias.data.fill_(0.3)
    expected = [0.3 + float(sum(feature.sum() for feature in row)) for row in linear_features(data, 1)]

    assert network(data).tolist() == pytest.approx(expected, abs=1e-5)


def test_factorisation_machine_is_rendles_equation_1() -> None:
    config = fm.Config(embedding_size=4)
    data, shape = inputs(config.width)
    network = fm.Network(config, shape)
    network.bias.data.fill_(0.3)
    expected = []
    for features in linear_features(data, 5):
        pairs = sum(float(one[1:] @ other[1:]) for one, other in itertools.combinations(features, 2))
        expected.append(0.3 + float(sum(feature[0] for feature in features)) + pairs)

    assert network(data).tolist() == pytest.approx(expected, abs=1e-4)


def test_cross_layer_is_dcn_equation_3() -> None:
    cross, x0, x = dcn.Cross(D), torch.randn(B, D), torch.randn(B, D)
    cross.bias.data.normal_()
    w = cross.weight.weight[0]
    expected = torch.stack([torch.outer(x0[b], x[b]) @ w + cross.bias + x[b] for b in range(B)])

    torch.testing.assert_close(cross(x0, x), expected)


@pytest.mark.parametrize("maps", [(3,), (3, 2), (2, 3, 4)])
def test_cin_is_xdeepfm_equation_6(maps: tuple[int, ...]) -> None:
    cin, x0 = xdeepfm.CIN(F, maps), fields()
    x, expected = x0, []
    for weight in cin.weights:
        found = torch.zeros(B, len(weight), D)
        for n, i, j in itertools.product(range(weight.shape[0]), range(weight.shape[1]), range(F)):
            found[:, n] += weight[n, i, j] * x[:, i] * x0[:, j]
        x = found
        expected.append(x.sum(dim=2))

    torch.testing.assert_close(cin(x0), torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_bilinear_pairs_are_fibinets_field_each_type() -> None:
    pairs, x, weight = fibinet.BilinearPairs(F, D), fields(), torch.rand(B, F)
    expected = []
    for v in (x, x * weight[..., None]):
        expected += [(v[:, i] @ pairs.weight[i]) * v[:, j] for i, j in itertools.combinations(range(F), 2)]

    torch.testing.assert_close(pairs(x, weight), torch.stack(expected, dim=1))


def test_bilinear_pairs_have_the_gradient_of_their_value() -> None:
    pairs = fibinet.BilinearPairs(F, 2).double()
    x, weight = torch.randn(3, F, 2, dtype=torch.double), torch.rand(3, F, dtype=torch.double)

    assert torch.autograd.gradcheck(pairs, (x.requires_grad_(), weight.requires_grad_()))


def test_senet_weighs_fields_by_their_means() -> None:
    importance, x = fibinet.Importance(F, 2), fields()
    squeeze, excite = importance.excite[0], importance.excite[2]
    means = x.mean(dim=2)
    expected = ((means @ squeeze.weight.t() + squeeze.bias).relu() @ excite.weight.t() + excite.bias).relu()

    torch.testing.assert_close(importance(x), expected)


def test_interaction_is_autoints_attention_with_a_residual() -> None:
    heads, size = 2, 3
    interaction, x = autoint.Interaction(D, heads, size), fields()
    query, key, value, residual = interaction.maps.weight.split(heads * size)
    expected = torch.zeros(B, F, heads * size)
    for b, head, m in itertools.product(range(B), range(heads), range(F)):
        own = slice(head * size, (head + 1) * size)
        scores = torch.stack([(query[own] @ x[b, m]) @ (key[own] @ x[b, k]) for k in range(F)]).softmax(dim=0)
        attended = sum(scores[k] * (value[own] @ x[b, k]) for k in range(F))
        expected[b, m, own] = (attended + residual[own] @ x[b, m]).relu()

    torch.testing.assert_close(interaction(x), expected)


def test_fusion_is_finalmlps_bilinear_form_in_heads() -> None:
    fusion, one, other = finalmlp.Fusion(6, 2), torch.randn(B, 6), torch.randn(B, 6)
    crossed = sum(
        torch.einsum("bi,ij,bj->b", one[:, own], fusion.weight[head], other[:, own])
        for head, own in enumerate((slice(0, 3), slice(3, 6)))
    )

    torch.testing.assert_close(fusion(one, other), fusion.linear(torch.cat([one, other], dim=1))[:, 0] + crossed)


def test_recurrence_is_torchs_gru_where_nothing_is_scaled() -> None:
    ours, theirs = GRU(3), torch.nn.GRU(2, 3)
    x = torch.randn(L, B, 2)
    # torch's order is reset, update, candidate, and its update gate keeps the old state where ours takes the new one
    reset, update, candidate = theirs.weight_hh_l0.split(3)
    ours.weight.data = torch.cat([-update, reset, candidate]).t().contiguous()
    ours.bias.data = theirs.bias_hh_l0[6:].clone()
    mapped = x @ theirs.weight_ih_l0.t() + theirs.bias_ih_l0
    hidden = theirs.bias_hh_l0
    steps = torch.cat([-(mapped[..., 3:6] + hidden[3:6]), mapped[..., :3] + hidden[:3], mapped[..., 6:]], dim=2)

    torch.testing.assert_close(ours(steps, torch.ones(L, B)), theirs(x)[0])


def test_recurrence_is_augru_and_padding_leaves_the_state() -> None:
    gru, steps, scale = GRU(3), torch.randn(L, B, 9), torch.rand(L, B)
    scale[2, 1] = scale[:, 3] = 0
    gru.bias.data.normal_()
    u_u, u_r, u_n = gru.weight.split(3, dim=1)
    h, expected = torch.zeros(B, 3), []
    for t in range(L):
        x_u, x_r, x_n = steps[t].split(3, dim=1)
        u, r = (x_u + h @ u_u).sigmoid(), (x_r + h @ u_r).sigmoid()
        candidate = (x_n + r * (h @ u_n + gru.bias)).tanh()
        scaled = scale[t, :, None] * u  # equation of AUGRU: u~ = a u, h' = (1 - u~) h + u~ candidate
        h = (1 - scaled) * h + scaled * candidate
        expected.append(h)
    found = gru(steps, scale)

    torch.testing.assert_close(found, torch.stack(expected))
    assert torch.equal(found[2, 1], found[1, 1])
    assert (found[:, 3] == 0).all()


def test_recurrence_has_the_gradient_of_its_value() -> None:
    gru = GRU(2).double()
    steps = torch.randn(4, 3, 6, dtype=torch.double, requires_grad=True)
    scale = torch.rand(4, 3, dtype=torch.double)
    scale[1, 2] = 0
    parameters = (gru.weight, gru.bias)

    assert torch.autograd.gradcheck(
        lambda *each: torch.func.functional_call(gru, {"weight": each[2], "bias": each[3]}, each[:2]),
        (steps, scale.requires_grad_(), *parameters),
    )


def test_dien_reads_from_the_oldest_to_the_newest() -> None:
    data, shape = inputs()
    network = dien.Network(dien.Config(state=3), shape)
    network.start.data.normal_()
    (items, ratings), mask = data.channels, data.mask_BL
    finals = []
    for b in range(B):
        oldest_first = [place for place in reversed(range(L)) if mask[b, place]]
        steps = [
            network.start
            + network.liked * data.liked_BL[b, place]
            + network.steps[0](items.table_VE[items.rows_BL[b, place]])
            + network.steps[1](ratings.table_VE[ratings.rows_BL[b, place]])
            for place in oldest_first
        ]
        if not steps:
            finals.append(torch.zeros(1, 3))
            continue
        interest = network.extractor(torch.stack(steps)[:, None], torch.ones(len(steps), 1))
        assert items.target_BE is not None
        attention = (interest[:, 0] @ network.query(items.target_BE[b])).softmax(dim=0)
        finals.append(network.evolution(network.inner(interest), attention[:, None])[-1])
    expected = network.mlp(torch.cat([data.fields_BFD.flatten(1), torch.cat(finals)], dim=1)).squeeze(1)

    torch.testing.assert_close(network(data), expected)


@pytest.mark.parametrize("n", [1, 3, L, 20])
def test_soft_search_finds_the_greatest_inner_products(n: int) -> None:
    data, _ = inputs()
    items = data.channels[0]
    assert items.target_BE is not None
    places, found = sim.search(data, "soft", n)
    for b in range(B):
        filled = [place for place in range(L) if data.mask_BL[b, place]]
        product = {place: float(items.table_VE[items.rows_BL[b, place]] @ items.target_BE[b]) for place in filled}
        best = sorted(filled, key=lambda place: (-round(product[place], 5), place))[:n]

        assert sorted(places[b][found[b]].tolist()) == sorted(best)


def test_both_ways_to_multiply_agree() -> None:
    data, _ = inputs()
    items = data.channels[0]
    few = sim.inner_products(data)
    padded = torch.cat([items.table_VE, torch.randn(40 * L, items.table_VE.shape[1])])
    many = Channel(padded, items.rows_BL, items.target_BE, items.values_VA, items.target_values_BA)

    torch.testing.assert_close(few, sim.inner_products(Inputs(data.fields_BFD, [many], data.mask_BL, data.liked_BL)))


@pytest.mark.parametrize("n", [1, 3, 20])
def test_hard_search_finds_the_newest_that_share_a_value(n: int) -> None:
    data, _ = inputs()
    items = data.channels[0]
    places, found = sim.search(data, "hard", n)
    counts = []
    for b in range(B):
        wanted = set(items.target_values_BA[b].tolist()) - {0}
        share = [
            place
            for place in range(L)
            if data.mask_BL[b, place] and wanted & set(items.values_VA[items.rows_BL[b, place]].tolist())
        ]
        counts.append(len(share))

        assert sorted(places[b][found[b]].tolist()) == share[:n]
    assert 0 < sum(counts) < int(data.mask_BL.sum())  # some share a value and some do not


@pytest.mark.parametrize("search", ["soft", "hard"])
def test_sim_attends_to_what_was_found(search: str) -> None:
    data, shape = inputs()
    network = sim.Network(sim.Config(search=search, found=3, heads=2, head_size=2), shape)  # type: ignore[arg-type]
    items, ratings = data.channels
    assert items.target_BE is not None
    places, found = sim.search(data, search, 3)  # type: ignore[arg-type]
    query = network.query(items.target_BE)
    expected = torch.zeros(B, 2, 2, 2)  # head, liked or disliked, size
    for b, head, group in itertools.product(range(B), range(2), range(2)):
        own = slice(2 * head, 2 * head + 2)
        mine = [
            p for p, there in zip(places[b], found[b], strict=True) if there and data.liked_BL[b, p] == (group == 0)
        ]
        pairs = [
            network.maps[0](items.table_VE[items.rows_BL[b, p]])
            + network.maps[1](ratings.table_VE[ratings.rows_BL[b, p]])
            + network.age[int(p + 1).bit_length()]
            for p in mine
        ]
        if pairs:
            key, value = torch.stack(pairs).split(4, dim=1)
            expected[b, head, group] = (key[:, own] @ query[b, own]).softmax(dim=0) @ value[:, own]

    torch.testing.assert_close(network._found(data), expected.flatten(1))


def test_ages_are_told_apart_by_their_logarithm() -> None:
    assert sim.age(torch.tensor([0, 1, 2, 3, 6, 7, 10**6])).tolist() == [1, 2, 2, 3, 3, 4, sim.AGES]
