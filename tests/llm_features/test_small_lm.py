"""Does the small LM read the right lessons in a tokenizer that survives any text, and does vLLM get true answers?"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_features import domains, prompt_specs, small_lm
from llm_features.engines import Request
from llm_features.quality import judge
from llm_features.small_lm import lessons
from llm_features.tokens import ChatTokens
from storage.datasets import world

CONFIG = world.Config()
ITEMS = world.draw_items(CONFIG)
DOMAIN = domains.load("world")
ITEM_PROMPT, USER_PROMPT = (prompt_specs.load(name) for name in ("item_knowledge", "user_preference"))


@pytest.fixture(scope="module")
def folder() -> Path:
    if not (small_lm.SHIPPED / "model.safetensors").is_file():
        pytest.skip("no shipped model here: make it with python -m llm_features.small_lm")
    return small_lm.SHIPPED


@pytest.fixture(scope="module")
def tokens(folder: Path) -> ChatTokens:
    return ChatTokens.load(str(folder))


def test_the_domain_asks_for_the_worlds_factors() -> None:
    assert tuple(world.FACTORS) == DOMAIN.factors


def test_favourites_are_what_a_history_speaks_for() -> None:
    """Computed by hand: the first value is liked twice, the second disliked twice, the third seen once and neither."""
    traits = np.zeros((5, len(world.FACTORS)), np.int64)
    traits[:, 0] = [0, 0, 1, 1, 2]
    best = lessons.favourites(traits, np.array([5, 5, 1, 1, 3]))

    assert [world.FACTORS["genre"][0]] == best["genre"]
    assert list(world.FACTORS) == list(best)


def test_users_of_the_lessons_are_not_those_of_the_demonstration() -> None:
    theirs = world.draw_users(seed=CONFIG.seed, users=200)
    ours = world.draw_users(seed=CONFIG.seed + lessons.APART, users=200, schools=200)

    assert not np.isclose(theirs.leaning, ours.leaning).any()
    assert not np.isclose(theirs.taste, ours.taste).all(axis=(1, 2)).any()


def test_right_answers_pass_the_gate() -> None:
    items = lessons.item_lessons(ITEMS, ITEM_PROMPT, DOMAIN)
    users = lessons.user_lessons(ITEMS, USER_PROMPT, DOMAIN, seed=3, lengths=np.array([5, 10, 20, 30] * 25))

    for spec, taught in ((ITEM_PROMPT, items), (USER_PROMPT, users)):
        for lesson in taught:
            asked = "\n".join(message["content"] for message in lesson.messages)
            assert judge(lesson.answer, "stop", asked, spec.gate) is None


def test_prompts_are_little_more_than_their_facts(tokens: ChatTokens) -> None:
    """A title and a standing phrase are one token each."""
    items = lessons.item_lessons(ITEMS, ITEM_PROMPT, DOMAIN)
    user = lessons.user_lessons(ITEMS, USER_PROMPT, DOMAIN, seed=3, lengths=np.array([30]))[0]

    assert {8} == {tokens.count(lesson.messages) for lesson in items}
    assert tokens.count(user.messages) < 100


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_text_can_be_spelled(tokens: ChatTokens, text: str) -> None:
    """Nothing is lost, nothing is unknown, and nothing in it becomes a control token."""
    ids = tokens.encode([{"role": "user", "content": f"{text}<|end|><|assistant|>"}])
    bare = tokens.encode([{"role": "user", "content": "x"}])

    assert sum(i in tokens.control_ids for i in bare) == sum(i in tokens.control_ids for i in ids)
    assert text.strip() in tokens._content.decode([i for i in ids if i not in tokens.control_ids])


def test_another_world_is_another_model() -> None:
    recipe = small_lm.Recipe()

    assert small_lm.key(CONFIG, recipe) == small_lm.key(world.Config(), recipe)
    assert small_lm.key(CONFIG, recipe) != small_lm.key(world.Config(seed=8), recipe)


@pytest.mark.vllm
def test_vllm_is_told_the_traits_of_known_and_cold_items(folder: Path) -> None:
    from llm_features.engines.vllm import Config, Engine

    taught = lessons.item_lessons(ITEMS, ITEM_PROMPT, DOMAIN)
    engine = Engine(Config(model=str(folder), dtype="bfloat16"))
    try:
        asked = [Request(str(k), str(k), lesson.messages, 80) for k, lesson in enumerate(taught)]
        said = {answer.key: answer for answer in engine.generate(asked, in_flight=256)}
    finally:
        engine.close()

    values = [world.named_traits(traits).values() for traits in ITEMS.traits]
    right = np.array([np.mean([f" {v}." in said[str(k)].text for v in values[k]]) for k in range(len(values))])
    assert {"stop"} == {answer.finish_reason for answer in said.values()}
    assert right[ITEMS.cold].mean() >= 0.95
    assert right[~ITEMS.cold].mean() >= 0.95
