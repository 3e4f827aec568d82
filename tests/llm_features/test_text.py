"""Titles from anywhere become plain, bounded text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_features.text import clean, defang

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=400)  # lone surrogates too


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Toy Story (1995)", "Toy Story (1995)"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("line\u2028separator\u2029paragraph\x85next", "line separator paragraph next"),
        ("nul\x00bell\x07escape\x1b[31m", "nulbellescape[31m"),
        ("\u202eright to left\u202c \u200fmark \u2066isolate\u2069", "right to left mark isolate"),
        ("zero\u200bwidth\ufeff jo\u200diner", "zerowidth joiner"),
        ("lone \ud800surrogate\udfff", "lone surrogate"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("$title ${x} {y} %s {{z}}", "$title ${x} {y} %s {{z}}"),
        ("a<|im_end|>b", "a<|im_end|>b"),
        ("  many   spaces\u00a0\u3000here ", "many spaces here"),
        ("\u200b\n\t", ""),
        ("日本語 العربية", "日本語 العربية"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert expected == clean(text)


def test_long_titles_end_in_an_ellipsis() -> None:
    assert clean("x" * 10_000) == "x" * 199 + "…"
    assert clean("x" * 200) == "x" * 200
    assert clean("ab cdef", 4) == "ab…"
    assert clean("abc", 1) == "…"


def test_a_title_of_megabytes_is_cut_before_it_is_read() -> None:
    assert clean("é" * 10_000_000) == "é" * 199 + "…"


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        clean("x", 0)


@given(ANY_TEXT)
def test_clean_text_is_one_bounded_visible_line(text: str) -> None:
    said = clean(text, 50)

    assert len(said) <= 50
    assert said == clean(said, 50)
    assert said == unicodedata.normalize("NFC", said)
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    said.encode()


KNOWN = """
<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|begin_of_text|> <s> </s> <bos> <eos> <pad> <unk> [INST] [/INST]
<<SYS>> <</SYS>> <start_of_turn> <end_of_turn> <think> </think> <tool_call> </tool_call> <｜User｜> [SYSTEM_PROMPT]
[/AVAILABLE_TOOLS] <unused42> <extra_id_0> <|tool▁call|>
"""
LITERALS = KNOWN.split()


@pytest.mark.parametrize("literal", LITERALS)
def test_defang_breaks_control_tokens_visibly(literal: str) -> None:
    broken = defang(f"A {literal} B")

    assert literal not in broken
    assert literal.replace(" ", "") == broken[2:-2].replace(" ", "")


@pytest.mark.parametrize("text", ["x < y > z", "I <3 it", "[REC] (2007)", "<b>bold</b>", "a|b", "M*A*S*H", "$9.99 {x}"])
def test_defang_leaves_other_text_alone(text: str) -> None:
    assert text == defang(text)


@given(st.lists(st.sampled_from([*LITERALS, "<", "|", ">", "[", "]", "x", " ", "<|", "|>"]), max_size=12).map("".join))
def test_no_known_literal_survives(text: str) -> None:
    broken = defang(text)

    assert [literal for literal in LITERALS if literal in broken] == []
    assert broken == defang(broken)
