"""Baselines and hybrids against answers worked out by hand, and what all of them must do."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_matrix

from ctr_models.sequential import baselines
from ctr_models.sequential.baselines import item_text, llm_seq_sim, most_popular, vsknn
from ctr_models.sequential.histories import Histories
from ctr_models.sequential.hybrids import (
    EnsembleConfig,
    PopularOnly,
    PopularOnlyConfig,
    SwitchConfig,
    hybrid,
    popularity,
)
from ctr_models.sequential.ranking import Scorer, best
from ctr_models.sequential.weighting import weights
from storage import plugins
from storage.errors import ConfigError
from tests.ctr_models.sequential.conftest import make_histories, make_sequences, make_text

KINDS = plugins.available(baselines)
DATA = make_sequences()
TEXT = make_text(DATA)


class Fixed:
    """The same scores for everyone."""

    def __init__(self, *scores: float) -> None:
        self._scores = np.array(scores, np.float32)

    def scores(self, history: Histories) -> np.ndarray:
        return np.tile(self._scores, (len(history), 1))


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: str) -> None:
    plugin = plugins.load(baselines, kind)
    model: Scorer = plugin.Model(plugin.Config(), DATA, TEXT if plugin.NEEDS_TEXT else None)
    histories = make_histories(many=20, seed=3)
    together = model.scores(histories)
    order = np.random.default_rng(0).permutation(20)

    assert together.shape == (20, DATA.n_items + 1)
    assert not np.isnan(together).any()
    np.testing.assert_allclose(model.scores(histories.take(order)), together[order], rtol=1e-5, atol=1e-6)
    strange = model.scores(Histories.of([[], [9999]]))
    assert not np.isnan(strange).any()
    with pytest.raises(ValidationError):
        plugin.Config(no_such_option=1)


def test_most_popular_counts_training_rows() -> None:
    scores = most_popular.Model(most_popular.Config(), DATA, None).scores(Histories.of([[1]]))[0]

    assert np.array_equal(scores[1:31], DATA.counts[1:31])
    assert np.isneginf(scores[31:]).all()


def test_weights_by_hand() -> None:
    history = Histories.of([[5, 6, 7], [8]])

    assert weights("mean", history).tolist() == [1, 1, 1, 1]
    assert weights("linear", history) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert weights("quadratic", history) == pytest.approx([1 / 9, 4 / 9, 1, 1])
    assert weights("log", history) == pytest.approx([1 / 2, 1 / math.log2(3), 1, 1])
    assert weights("harmonic", history) == pytest.approx([1 / 3, 1 / 2, 1, 1])
    assert weights("harmonic_squared", history) == pytest.approx([1 / 9, 1 / 4, 1, 1])
    assert weights("last", history).tolist() == [0, 0, 1, 1]


def test_vsknn_agrees_with_loops() -> None:
    config = vsknn.Config(neighbours=len(DATA.train))  # all of them: which of equal neighbours is left out is chance
    history = make_histories(many=10, seed=9)
    found = vsknn.Model(config, DATA, None).scores(history)
    sessions = [set(DATA.train[s].tolist()) for s in range(len(DATA.train))]
    for q in range(10):
        items = history[q].tolist()
        weight = {item: (place + 1) / len(items) for place, item in enumerate(items)}
        similar = [sum(weight[i] for i in items if i in session) for session in sessions]
        expected = [sum(s for s, held in zip(similar, sessions, strict=True) if i in held) for i in range(1, 31)]
        np.testing.assert_allclose(found[q, 1:31], expected, rtol=1e-4, atol=1e-5)


def test_only_the_nearest_sessions_vote() -> None:
    similarity = csr_matrix(np.array([[0.5, 0.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 3.0]]))

    assert vsknn.nearest(similarity, 2).toarray().tolist() == [[0, 0, 2, 1, 0], [0, 0, 0, 0, 3]]


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
def test_llm_seq_sim_agrees_with_loops(similarity: str) -> None:
    config = llm_seq_sim.Config(weighting="linear", similarity=similarity)  # type: ignore[arg-type]
    found = llm_seq_sim.Model(config, DATA, TEXT).scores(Histories.of([[1, 4, 2]]))[0]  # 4 has no text
    session = (TEXT.vectors[1] * (1 / 3) + TEXT.vectors[2]) / (4 / 3)
    for item in (3, 7, 33):
        vector = TEXT.vectors[item]
        expected = {
            "dot": session @ vector,
            "cosine": session @ vector / np.linalg.norm(session) / np.linalg.norm(vector),
            "euclidean": -np.square(session - vector).sum(),
        }[similarity]
        assert found[item] == pytest.approx(expected, abs=1e-5)
    assert np.isneginf(found[4])


def test_text_baselines_find_the_group_and_cold_items() -> None:
    for plugin in (llm_seq_sim, item_text):
        scores = plugin.Model(plugin.Config(), DATA, TEXT).scores(Histories.of([[5, 10, 15]]))
        scores[:, [5, 10, 15]] = -np.inf
        assert set(best(scores, 3)[0].tolist()) == {20, 25, 30}
        with pytest.raises(ConfigError, match="vectors"):
            plugin.Model(plugin.Config(), DATA, None)


def test_a_reduced_llm_seq_sim_is_near_the_whole() -> None:
    whole = llm_seq_sim.Model(llm_seq_sim.Config(), DATA, TEXT).scores(Histories.of([[1, 2]]))[0]
    reduced = llm_seq_sim.Model(llm_seq_sim.Config(reduction="pca", dimensions=11), DATA, TEXT)

    assert np.corrcoef(whole[5:], reduced.scores(Histories.of([[1, 2]]))[0][5:])[0, 1] > 0.9


def test_ensemble_is_one_list_and_then_the_other() -> None:
    first, second = Fixed(0, 5, 4, 3, 2, 1), Fixed(0, 1, 2, 3, 4, 5)
    config = EnsembleConfig(first="a", second="b", cutoff=2)
    made = hybrid(config, {"a": first, "b": second}, DATA)

    assert best(made.scores(Histories.of([[1]])), 4)[0].tolist() == [2, 3, 5, 4]  # 1 was seen


def test_switch_looks_at_the_newest_item() -> None:
    share = popularity(DATA)
    common, rare = int(share[1:31].argmax()) + 1, int(share[1:31].argmin()) + 1
    a, b = Fixed(*[1.0] * 34), Fixed(*[2.0] * 34)
    made = hybrid(SwitchConfig(popular="a", rare="b", quantile=0.5), {"a": a, "b": b}, DATA)

    assert made.scores(Histories.of([[rare, common], [common, rare], []]))[:, 1].tolist() == [1.0, 2.0, 2.0]


def test_popular_only_drops_the_worst_rare_items_while_enough_are_left() -> None:
    by_number = Fixed(-math.inf, *range(33, 0, -1))  # item 1 is best, item 33 worst
    is_rare = np.zeros(34, bool)
    is_rare[[1, 3, 4]] = True
    thinned = PopularOnly(by_number, is_rare, keep=2, longer=4).scores(Histories.of([[], [2]]))

    assert best(thinned, 5).tolist() == [[1, 2, 3, 4, 5], [1, 5, 3, 4, 6]]  # of 1 3 4 5, 3 and 4 are dropped


def test_popular_only_takes_its_quantile_from_training_sequences() -> None:
    by_number = Fixed(-math.inf, *range(33, 0, -1))
    made = hybrid(PopularOnlyConfig(of="a", quantile=0.0, keep=2, longer=2), {"a": by_number}, DATA)

    assert best(made.scores(Histories.of([[]])), 4)[0].tolist() == [1, 2, 3, 4]  # nobody is rarer than the rarest
