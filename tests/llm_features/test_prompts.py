"""A prompt is data: its variables are checked, its facts are joined in and fitted to the budget."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_features import domains, prompt_specs, specs
from llm_features.domains import Domain
from llm_features.facts import ItemFacts, UserFacts
from llm_features.prompts import PromptSpec, Renderer, estimate_tokens, prompt_limit, render
from llm_features.tokens import ChatTokens
from storage.errors import ConfigError
from tests.llm_features.chat_models import chat_tokens

DOMAIN = Domain(
    name="films", singular="film", plural="films", verb="saw", rating="$rating of $best", factors=("a", "b")
)


def item_spec(**changes: Any) -> PromptSpec:
    fields = {"version": 1, "entity": "item", "max_tokens": 50, "budget": 400, "user": "About $title:\n$attributes"}
    return PromptSpec(name="test", **{**fields, **changes})


def user_spec(**changes: Any) -> PromptSpec:
    user = "Factors:\n$factors\nPerson:\n$profile\nSeen:\n$history"
    fields = {"version": 1, "entity": "user", "max_tokens": 50, "budget": 400, "user": user}
    return PromptSpec(name="test", **{**fields, **changes})


def item(title: str, **attributes: Any) -> ItemFacts:
    return ItemFacts(DOMAIN, title, attributes)


def user(n: int, *, title: str = "Film {}", **attributes: Any) -> UserFacts:
    return UserFacts(DOMAIN, attributes, tuple((item(title.format(i)), float(i % 5 + 1)) for i in range(n)), 5.0)


@pytest.mark.parametrize("name", domains.available())
@pytest.mark.parametrize("prompt", prompt_specs.available())
def test_every_prompt_renders_in_every_domain(prompt: str, name: str) -> None:
    spec, domain = prompt_specs.load(prompt), domains.load(name)
    one = ItemFacts(domain, "Heat $title {x}", {"genres": ("Crime", "Action"), "release_year": 1995})
    facts = one if spec.entity == "item" else UserFacts(domain, {"age": "25-34"}, ((one, 4.0), (one, None)), 5.0)
    *system, said = render(spec, facts)

    assert [message["role"] for message in (*system, said)] == ["system", "user"][-1 - len(system) :]
    assert "Heat $title {x}" in said["content"]
    if not spec.system:  # the text itself, not a question
        assert said["content"] == {"item_title": one.title}.get(
            prompt, f"{one.title}\ngenres: Crime, Action\nrelease year: 1995"
        )
        return
    assert "$" not in system[0]["content"]
    assert all(factor in said["content"] for factor in domain.factors)
    assert said["content"].index(domain.factors[-1]) < said["content"].index("Heat")  # what prompts share is first
    assert domain.plural in system[0]["content"]


def test_item_messages() -> None:
    facts = item("Heat (1995)", genres=("Crime", "Action"), release_year=1995, score=7.5, lead="Al Pacino")
    expected = "About Heat (1995):\ngenres: Crime, Action\nrelease year: 1995\nscore: 7.5\nlead: Al Pacino"

    assert ({"role": "user", "content": expected},) == render(item_spec(), facts)
    assert render(item_spec(), item("Heat")) == ({"role": "user", "content": "About Heat:"},)


def test_user_messages() -> None:
    history = ((item("Heat"), 4.0), (item(""), 3.5), (item("$history {y}"), None))
    facts = UserFacts(DOMAIN, {"age": "25-34"}, history, 5.0)
    system, said = render(user_spec(system="You know $plural."), facts)
    expected = (
        "Factors:\n- a\n- b\nPerson:\nage: 25-34\nSeen:\n- Heat: 4 of 5\n- an untitled film: 3.5 of 5\n- $history {y}"
    )

    assert system["content"] == "You know films."
    assert expected == said["content"]
    assert "Person:\nnothing is known\n" in render(user_spec(), user(1))[0]["content"]


def test_a_plain_dollar_sign_is_written_twice() -> None:
    assert render(item_spec(user="Costs $$5: $title"), item("Heat"))[0]["content"] == "Costs $5: Heat"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "$titel"}, r"unknown variables: \$titel; there are: .*\$title"),
        ({"user": "$title $history"}, r"unknown variables: \$history"),
        ({"user": "no facts"}, r"lacks \$title"),
        ({"user": "$title costs 5 $"}, r"plain dollar sign is written \$\$"),
        ({"user": "$title", "system": "$title"}, "only once"),
        ({"user": "$title $title"}, "only once"),
        ({"user": "$title", "budget": 0}, "greater than 0"),
        ({"user": "$title", "colour": "red"}, "Extra inputs"),
        ({"user": "$title", "gate": {"min_word": 3}}, "Extra inputs"),
        ({"user": "$title", "gate": {"max_echo": 2}}, "less than or equal to 1"),
    ],
)
def test_a_wrong_prompt_is_refused_when_it_is_read(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        item_spec(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 1\n= 2", "cannot be read as TOML"),
        ("name = 'x'", "the file's name already"),
        ("version = 1", "entity: Field required"),
        ("version=1\nentity='item'\nuser='$titel'\nmax_tokens=1\nbudget=9", r"unknown variables: \$titel"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)

    with pytest.raises(ConfigError, match=f"mine.toml.*(?s:.*){message}"):
        specs.read(tmp_path, "mine", PromptSpec)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="no 'films' in domains; there are: beauty, books"):
        domains.load("films")
    with pytest.raises(ConfigError, match="there are: item_attributes, item_factor, item_knowledge, item_title"):
        prompt_specs.load("../x")


def test_a_domain_rates_in_words_that_are_known() -> None:
    with pytest.raises(ValidationError, match=r"must use \$rating"):
        DOMAIN.model_validate({**DOMAIN.model_dump(), "rating": "$stars"})


def test_the_gate_is_no_part_of_the_identity() -> None:
    assert item_spec().identity == item_spec(gate={"min_words": 3}).identity
    assert item_spec().identity != item_spec(version=2).identity


@pytest.mark.parametrize("tokens", [None, chat_tokens("chatml"), chat_tokens("gemma")], ids=["none", "chatml", "gemma"])
def test_the_newest_history_is_kept(tokens: ChatTokens | None) -> None:
    renderer = Renderer(user_spec(), DOMAIN, tokens=tokens)
    all_of_it, some = renderer.render([user(5), user(300)])
    assert all_of_it is not None
    assert some is not None
    lines = [line for line in some.messages[0]["content"].split("\n") if line.startswith("- Film")]

    assert (all_of_it.shortened, some.shortened) == (False, True)
    assert [f"- Film {i}: {i % 5 + 1} of 5" for i in range(300 - len(lines), 300)] == lines
    assert len(lines) > 10
    assert some.n_tokens <= 400
    if tokens:
        assert tokens.count(some.messages) <= 400
        assert tokens.count(some.messages) > 360  # nearly all of the budget is used


def test_then_the_last_attributes_go_and_then_words() -> None:
    renderer = Renderer(user_spec(budget=90), DOMAIN, tokens=chat_tokens("chatml"))
    facts = user(9, first="x", second="y" * 90)
    long = user(2, title="word " * 40 + "{}")
    one, other = renderer.render([facts, long])
    assert one is not None
    assert other is not None

    assert "first: x" in one.messages[0]["content"]
    assert "second" not in one.messages[0]["content"]
    assert "- Film 8: 4 of 5" in one.messages[0]["content"]
    assert other.messages[0]["content"].endswith("…")
    assert "- word word" in other.messages[0]["content"]


@settings(max_examples=60, deadline=None)
@given(
    titles=st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=200), max_size=8),
    about=st.dictionaries(st.sampled_from("abcdef"), st.text("xyz日 ", min_size=1, max_size=150)),
    budget=st.integers(90, 500),
)
def test_no_prompt_is_ever_longer_than_its_budget(titles: list[str], about: dict[str, str], budget: int) -> None:
    history = tuple((item(title), 3.0) for title in ["Heat", *titles])
    facts = [UserFacts(DOMAIN, about, history, 5.0)]
    tokens = chat_tokens("chatml")
    rendered = Renderer(user_spec(budget=budget), DOMAIN, tokens=tokens).render(facts)[0]

    assert rendered is not None
    assert tokens.count(rendered.messages) <= budget
    assert tokens.count(rendered.messages) <= rendered.n_tokens


def test_the_models_length_bounds_the_prompt_too() -> None:
    assert prompt_limit(user_spec(), None) == 400
    assert prompt_limit(user_spec(), 4096) == 400
    assert prompt_limit(user_spec(), 300) == 250
    rendered = Renderer(user_spec(), DOMAIN, tokens=chat_tokens("chatml"), max_model_len=300).render([user(100)])[0]
    assert rendered is not None

    assert rendered.n_tokens <= 250


def test_instructions_that_do_not_fit_are_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"needs \d+ tokens before it names anything, but only 20 fit"):
        Renderer(user_spec(budget=20), DOMAIN)
    with pytest.raises(ConfigError, match="model length 60"):
        Renderer(user_spec(), DOMAIN, max_model_len=60)


def test_facts_that_do_not_fit_at_all_do_not_stop_the_others() -> None:
    fixed = chat_tokens("chatml").count(render(item_spec(user="About $title"), item("")))
    renderer = Renderer(item_spec(user="About $title", budget=fixed + 3), DOMAIN, tokens=chat_tokens("chatml"))

    assert [one is None for one in renderer.render([item("日" * 200), item("a")])] == [True, False]


def test_estimated_tokens_are_not_fewer_than_real_ones_in_english() -> None:
    lines = ["- Toy Story (1995): 4 of 5 stars", "Describe the movie named at the end, so that a reader can tell"]

    assert estimate_tokens(lines) == [11, 21]
