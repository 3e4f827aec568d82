"""No word of a title becomes a control token, whatever the family of the model."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_features import domains, prompt_specs
from llm_features.facts import ItemFacts
from llm_features.prompts import Renderer
from llm_features.tokens import ChatTokens
from storage.errors import ConfigError
from tests.llm_features.chat_models import FAMILIES, chat_tokens, tokenizer

PLAIN = ({"role": "system", "content": "You know movies."}, {"role": "user", "content": "The movie: Heat (1995)"})
LITERALS = [t for family in FAMILIES for t in tokenizer(family).get_added_vocab() if t.strip() and "0x" not in t]
TITLES = st.lists(
    st.one_of(
        st.sampled_from(sorted(set(LITERALS))),
        st.sampled_from(["<", "|", ">", "[", "]", "/", " ", "\n", "\n\n", "INST", "im_end", "s", "\ue0000\ue001"]),
        st.text(st.characters(exclude_categories=()), max_size=6),
    ),
    max_size=10,
).map("".join)


def control(tokens: ChatTokens, messages: object) -> list[int]:
    return [i for i in tokens.encode(messages) if i in tokens.control_ids]  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(title=TITLES, about=TITLES)
def test_contents_add_no_control_token(family: str, title: str, about: str) -> None:
    tokens = chat_tokens(family)
    messages = ({"role": "system", "content": about}, {"role": "user", "content": f"The movie: {title}\n{about}"})

    assert control(tokens, PLAIN) == control(tokens, messages)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_control_token_in_a_title_arrives_as_its_letters(family: str) -> None:
    tokens = chat_tokens(family)
    literals = " ".join(t for t in tokenizer(family).get_added_vocab() if t.strip() and "0x" not in t)
    facts = ItemFacts(domains.load("movies"), literals[:200], {})
    rendered = Renderer(prompt_specs.load("item_knowledge"), facts.domain, tokens=tokens).render([facts])[0]

    assert rendered is not None
    assert control(tokens, PLAIN) == control(tokens, rendered.messages)
    if family != "mistral_unigram":  # its vocabulary has no other way to spell them than letter by letter, or unknown
        text = tokenizer(family).decode(tokens.encode(rendered.messages))
        assert literals[:200].replace(" ", "") in text.replace(" ", "")


@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_honest_prompts_are_encoded_as_the_tokenizer_would(family: str) -> None:
    tokens = chat_tokens(family)
    expected = tokenizer(family).apply_chat_template(list(PLAIN), add_generation_prompt=True)["input_ids"]

    assert tuple(expected) == tokens.encode(PLAIN)


@pytest.mark.parametrize("family", ["gemma", "mistral", "mistral_unigram"])
def test_a_template_without_system_messages_gets_them_at_the_head_of_the_users(family: str) -> None:
    text = tokenizer(family).decode(ChatTokens(tokenizer(family)).encode(PLAIN))

    assert "You know movies." in text
    assert text.index("You know movies.") < text.index("Heat (1995)")


def test_template_arguments_reach_the_template_and_the_identity() -> None:
    plain, quiet = (
        ChatTokens(tokenizer("chatml"), chat_template_kwargs=kwargs) for kwargs in ({}, {"enable_thinking": False})
    )
    think = tokenizer("chatml").convert_tokens_to_ids("<think>")

    assert (plain.encode(PLAIN).count(think), quiet.encode(PLAIN).count(think)) == (0, 1)
    assert plain.identity != quiet.identity
    assert plain.identity["chat_template"] == quiet.identity["chat_template"]
    assert ChatTokens(tokenizer("llama3")).identity["chat_template"] != plain.identity["chat_template"]


def test_whitespace_tokens_keep_their_ids() -> None:
    tokens = ChatTokens(tokenizer("chatml"))
    blank = tokenizer("chatml").convert_tokens_to_ids("\n\n")
    messages = ({"role": "user", "content": "Heat\n\nJumanji"},)

    assert tokens.encode(messages).count(blank) == 1
    assert tuple(tokenizer("chatml").apply_chat_template(list(messages), add_generation_prompt=True)["input_ids"]) == (
        tokens.encode(messages)
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.sampled_from(["- Toy Story (1995): 4 of 5 stars", "genre: x", "日本", "a" * 50]), min_size=1))
def test_lines_count_as_much_apart_as_together(family: str, lines: list[str]) -> None:
    tokens = chat_tokens(family)
    whole = tokens.count(({"role": "user", "content": "\n".join(lines)},))
    none = tokens.count(({"role": "user", "content": ""},))

    apart = sum(tokens.count_lines(lines))

    assert -1 <= apart - (whole - none) <= 2 * len(lines) + 1


def test_the_callers_tokenizer_is_left_as_it_was() -> None:
    before = tokenizer("chatml").backend_tokenizer.to_str()
    ChatTokens(tokenizer("chatml")).encode(PLAIN)

    assert before == tokenizer("chatml").backend_tokenizer.to_str()


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    bare = FAMILIES["chatml"]()
    bare.chat_template = None

    with pytest.raises(ConfigError, match="no chat template"):
        ChatTokens(bare)


def test_a_template_that_loses_the_message_is_refused() -> None:
    deaf = FAMILIES["chatml"]()
    deaf.chat_template = "hello"

    with pytest.raises(ConfigError, match="every message exactly once"):
        ChatTokens(deaf).encode(PLAIN)


def test_loading_from_a_folder(tmp_path: Path) -> None:
    tokenizer("llama3").save_pretrained(tmp_path)

    assert ChatTokens(tokenizer("llama3")).encode(PLAIN) == ChatTokens.load(str(tmp_path)).encode(PLAIN)
    with pytest.raises(ConfigError, match="no tokenizer can be loaded"):
        ChatTokens.load(str(tmp_path / "nowhere"))
