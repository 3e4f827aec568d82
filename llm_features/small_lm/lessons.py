"""What does the small LM read? The encyclopedia, and worked examples of both prompts, rendered by the real prompt code.

The users of the examples are drawn apart from the demonstration's: of another seed, each with a taste of its own, and
with histories of their own. No interaction of the dataset is ever seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm_features.domains import Domain
from llm_features.facts import ItemFacts, UserFacts
from llm_features.prompts import PromptSpec, Renderer
from llm_features.tokens import Messages
from storage.datasets import world

ITEM_ANSWER = {
    "genre": "Genre: it is a {}.",
    "mood": "Mood: it is {}.",
    "era": "Era: it is {}.",
    "author": "Author: it is by {}.",
    "theme": "Theme: it is about {}.",
    "setting": "Setting: it is the {}.",
}
USER_ANSWER = ("{}: open to anything.", "{}: looks for {}.", "{}: looks for {} and {}.")
"""By the number of values that a history speaks for."""
USUAL, CLEAR = 3.4, 0.3
APART = 1_000_003
"""Added to the world's seed: the users of the examples are not those of the demonstration."""


@dataclass(frozen=True)
class Lesson:
    """A prompt and the answer that is right."""

    messages: Messages
    answer: str


def item_lessons(items: world.Items, spec: PromptSpec, domain: Domain) -> list[Lesson]:
    """One worked example an item, in order: title in, its traits out."""
    facts = [ItemFacts(domain, title, {}) for title in items.titles]
    answers = [item_answer(world.named_traits(traits)) for traits in items.traits]
    return _lessons(Renderer(spec, domain), facts, answers)


def user_lessons(
    items: world.Items, spec: PromptSpec, domain: Domain, *, seed: int, lengths: np.ndarray
) -> list[Lesson]:
    """One worked example for each of `lengths`: a history of so many ratings in, what of it was liked most out."""
    users = world.draw_users(seed=seed + APART, users=len(lengths), schools=len(lengths))
    liking = world.true_preference(items, users)
    rng = np.random.default_rng([seed + APART, 5])
    shown = [ItemFacts(domain, title, {}) for title in items.titles]
    facts, answers = [], []
    for user, length in enumerate(lengths):
        seen = rng.permutation(len(items.titles))[:length]
        ratings = world.rate(liking[user, seen], rng.standard_normal(length))
        about = {"region": world.REGIONS[users.region[user]], "age": world.AGES[users.age[user]]}
        history = tuple((shown[item], float(rating)) for item, rating in zip(seen, ratings, strict=True))
        facts.append(UserFacts(domain, about, history, best=5.0))
        answers.append(user_answer(favourites(items.traits[seen], ratings)))
    return _lessons(Renderer(spec, domain), facts, answers)


def favourites(traits: np.ndarray, ratings: np.ndarray) -> dict[str, list[str]]:
    """Of each factor the values, two at most, that a history speaks for, the best first.

    `traits` [n, factors], `ratings` [n]. A value scores the sum of its ratings above the history's mean, over the root
    of how often it occurs and two more; the mean counts three ratings of the usual size with the history's. A score
    below `CLEAR` is not spoken of.
    """
    above = ratings - (ratings.sum() + 3 * USUAL) / (len(ratings) + 3)
    best = {}
    for (name, values), column in zip(world.FACTORS.items(), traits.T, strict=True):
        score = np.bincount(column, above, len(values)) / np.sqrt(np.bincount(column, minlength=len(values)) + 2)
        best[name] = [values[place] for place in np.argsort(-score, kind="stable")[:2] if score[place] > CLEAR]
    return best


def item_answer(traits: dict[str, str]) -> str:
    """What the model should say of an item."""
    return " ".join(ITEM_ANSWER[name].format(value) for name, value in traits.items())


def user_answer(best: dict[str, list[str]]) -> str:
    """What the model should say of a user."""
    return " ".join(USER_ANSWER[len(values)].format(name.capitalize(), *values) for name, values in best.items())


def _lessons(renderer: Renderer, facts: list, answers: list[str]) -> list[Lesson]:
    rendered = renderer.render(facts)
    return [Lesson(one.messages, answer) for one, answer in zip(rendered, answers, strict=True) if one is not None]


def phrases(item_spec: PromptSpec, user_spec: PromptSpec, domain: Domain) -> Iterator[str]:
    """What stands in every prompt and answer between the words that differ: each becomes one token."""
    mark = "\ue000"
    novel = ItemFacts(domain, mark, {})
    texts = _contents(Renderer(item_spec, domain), novel)
    for rating in (1.0, 2.0, 3.0, 4.0, 5.0):
        user = UserFacts(domain, {"region": mark, "age": mark}, ((novel, rating), (novel, rating)), best=5.0)
        texts += _contents(Renderer(user_spec, domain), user)
    texts.append(item_answer(dict.fromkeys(world.FACTORS, mark)))
    texts += [user_answer(dict.fromkeys(world.FACTORS, [mark] * n)) for n in (1, 2)]
    texts += [prose.format_map(dict.fromkeys(("title", *world.FACTORS), mark)) for prose in world.PROSE]
    for text in texts:
        yield from text.split(mark)


def _contents(renderer: Renderer, facts: ItemFacts | UserFacts) -> list[str]:
    rendered = renderer.render([facts])[0]
    assert rendered is not None  # two lines of facts always fit
    return [message["content"] for message in rendered.messages]
