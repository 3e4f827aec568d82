"""Could a text have seen what it must not? Its time, its history, the prompt it answers, and what it says."""

import json
import re
from collections.abc import Iterator

import polars as pl

from flows.audits import Audited, shown
from storage.features import FeatureSet
from storage.schema import EARLIEST

_YEAR = re.compile(r"\s*\(\d{4}\)$")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
LONG_ENOUGH = 6
"""Characters of a title that is looked for in running text; shorter ones stand everywhere."""
TIMES_CHANCE = 3
"""Texts that name their users' future this many times as often as chance have seen it."""


def user_text_out_of_time(audited: Audited) -> Iterator[str]:
    """A user's text without a time joins every label, whatever it was made from: a profile of all ratings."""
    for name, feature in _of_users(audited):
        wrong = feature.rows.filter(pl.col("as_of") == EARLIEST)
        if len(wrong):
            yield f"{name}: {shown(wrong, 'entity_id', 'n_history')}"


def item_text_with_a_history(audited: Audited) -> Iterator[str]:
    """An item's text that claims to be static, and says that it was written from interactions."""
    for name, feature in audited.snapshot.features.items():
        if feature.entity == "item":
            wrong = feature.rows.filter((pl.col("as_of") == EARLIEST) & (pl.col("n_history") > 0))
            if len(wrong):
                yield f"{name}: {shown(wrong, 'entity_id', 'n_history')}"


def as_of_before_what_was_seen(audited: Audited) -> Iterator[str]:
    """A text from n interactions is as of an earlier time than the n-th of them, or there are fewer than n."""
    lives = audited.lives
    for name, feature in _of_users(audited):
        wrong = [
            (user, as_of, n)
            for user, as_of, n in feature.rows.select("entity_id", "as_of", "n_history").iter_rows()
            if as_of != EARLIEST and n > 0 and (n > len(lives[user].times) or lives[user].times[n - 1] > as_of)
        ]
        if wrong:
            user, as_of, n = wrong[0]
            yield f"{name}: {len(wrong)} rows, the first of user {user!r} as of {as_of}, from {n} interactions"


def made_before_its_data(audited: Audited) -> Iterator[str]:
    """A text that was made before the time it is as of: its `created_at` was backdated."""
    if audited.dataset.clock != "time":
        return
    for name, feature in audited.snapshot.features.items():
        wrong = feature.rows.filter(pl.col("created_at") < pl.col("as_of"))
        if len(wrong):
            yield f"{name}: {shown(wrong, 'entity_id', 'as_of', 'created_at')}"


def two_texts_for_one_time(audited: Audited) -> Iterator[str]:
    """Two texts of one user or item with equal times: which of them is joined is chance."""
    for name, feature in audited.snapshot.features.items():
        key = ["entity_id", "as_of", "n_history"]
        twice = feature.rows.filter(pl.struct(key).is_duplicated()).sort(key)
        if len(twice):
            yield f"{name}: {shown(twice, *key)}"


def prompt_shows_a_later_title(audited: Audited) -> Iterator[str]:
    """A user's prompt names an item that the user came to only after the time of the text: a target, or its future."""
    for name, user, as_of, lines, whole in _prompts(audited):
        life = audited.lives[user]
        past = {title for when, title in zip(life.times, life.titles, strict=True) if when <= as_of}
        known = "\n".join(past)
        for when, title in zip(life.times, life.titles, strict=True):
            telling = " " in title and len(title) >= LONG_ENOUGH and title not in known and title in whole
            if when > as_of and title not in past and (title in lines or telling):
                yield f"{name}: the prompt of user {user!r} as of {as_of} names {title!r}"
                break


def prompt_shows_more_than_its_history(audited: Audited) -> Iterator[str]:
    """A user's prompt with more lines of history than interactions it claims to have seen."""
    for name, feature in _of_users(audited):
        for user, n, source in feature.rows.select("entity_id", "n_history", "source_hash").iter_rows():
            lines = list(_history(audited.messages.get(source, "[]")))
            if len(lines) > n:
                yield f"{name}: the prompt of user {user!r} shows {len(lines)} interactions, but claims {n}"


def prompt_shows_a_later_rating(audited: Audited) -> Iterator[str]:
    """A line of history with a rating that the user gave to that item only after the time of the text."""
    for name, user, as_of, lines, _ in _prompts(audited):
        given: dict[str, set[float]] = {}
        later: dict[str, set[float]] = {}
        life = audited.lives[user]
        for when, title, rating in zip(life.times, life.titles, life.ratings, strict=True):
            if rating is not None:
                (given if when <= as_of else later).setdefault(title, set()).add(rating)
        for title, said in lines.items():
            wrong = said & later.get(title, set()) - given.get(title, set())
            if wrong and not said & given.get(title, set()):
                yield f"{name}: the prompt of user {user!r} as of {as_of} rates {title!r} {min(wrong):g}, as only later"


def prompt_names_a_user(audited: Audited) -> Iterator[str]:
    """A prompt that holds the id of a user: it leaves the machine, and it is a key to the answer for a model.

    Within the title of an item of the user it is something else: user 1996 may well have seen "Fargo (1996)".
    """
    for name, user, _, _, whole in _prompts(audited):
        held = re.compile(rf"(?<!\w){re.escape(user)}(?!\w)")
        if len(user) >= 4 and held.search(whole):
            for title in sorted(set(audited.lives[user].titles), key=len, reverse=True):
                whole = whole.replace(title, "")
            if held.search(whole):
                yield f"{name}: the prompt of user {user!r} holds the id"


def item_prompt_with_numbers_of_use(audited: Audited) -> Iterator[str]:
    """An item's prompt that tells how often, or how well, the item was rated over all time."""
    rows = audited.dataset.interactions
    told = re.compile(r"(?:\d+ ratings?|rated (?:by )?\d|average rating|popularity|mean rating)", re.IGNORECASE)
    known = set(rows["item_id"])
    for name, feature in audited.snapshot.features.items():
        if feature.entity == "item":
            for item, source in feature.rows.select("entity_id", "source_hash").iter_rows():
                found = told.search(audited.messages.get(source, ""))
                if item in known and found:
                    yield f"{name}: the prompt of item {item!r} says {found[0]!r}"
                    break


def text_names_the_future(audited: Audited) -> Iterator[str]:
    """Users' texts name what their user came to later more often than what only another user came to.

    Titles of another user are as popular, so a model that likes to name what is famous raises no alarm. Running text
    leaves the year behind a title out; a title within one of the past is no sign of the future.
    """
    lives = audited.lives
    titles_of = {user: [_YEAR.sub("", title) for title in life.titles] for user, life in lives.items()}
    strangers = dict(zip(lives, [*list(lives)[1:], *list(lives)[:1]], strict=True))
    for name, feature in _of_users(audited):
        own, chance = [0, 0], [0, 0]  # titles named, titles looked for
        for user, as_of, text in feature.rows.select("entity_id", "as_of", "text").iter_rows():
            mine = titles_of[user]
            past = {title for when, title in zip(lives[user].times, mine, strict=True) if when <= as_of}
            known = "\n".join(past)
            for titles, seen in (
                (set(mine) - past, own),
                (set(titles_of[strangers[user]]) - set(mine), chance),
            ):
                seen[0] += sum(len(one) >= LONG_ENOUGH and one in text and one not in known for one in titles)
                seen[1] += len(titles)
        expected = own[1] * chance[0] / max(1, chance[1])
        if own[0] > TIMES_CHANCE * expected + 2:
            yield f"{name}: texts name {own[0]} titles that their user came to later, {expected:.1f} by chance"


def text_that_never_changes(audited: Audited) -> Iterator[str]:
    """Most users' texts are the same at every checkpoint, however much the history grew: written once, and dated back.

    Whoever wrote them was not shown the history of each checkpoint, and may have been shown all of it.
    """
    for name, feature in _of_users(audited):
        users = feature.rows.group_by("entity_id").agg(pl.len(), same=pl.col("text").n_unique() == 1)
        users = users.filter(pl.col("len") > 1)
        if 2 * int(users["same"].sum()) > len(users):
            said = shown(users.filter(pl.col("same")).sort("entity_id"), "entity_id", "len")
            yield f"{name}: one text for several checkpoints of {len(users)} users: {said}"


def _of_users(audited: Audited) -> Iterator[tuple[str, FeatureSet]]:
    yield from ((name, each) for name, each in audited.snapshot.features.items() if each.entity == "user")


def _prompts(audited: Audited) -> Iterator[tuple[str, str, int, dict[str, set[float]], str]]:
    """(feature set, user, as_of, the prompt's lines of history with the numbers beside them, the whole prompt)."""
    for name, feature in _of_users(audited):
        for user, as_of, source in feature.rows.select("entity_id", "as_of", "source_hash").iter_rows():
            lines: dict[str, set[float]] = {}
            messages = audited.messages.get(source, "[]")
            for line in _history(messages):
                title, _, rest = line.rpartition(": ")
                number = _NUMBER.search(rest)
                lines.setdefault(title, set()).update({float(number[0])} if number else ())
                lines.setdefault(line, set())
            yield name, user, as_of, lines, "\n".join(message["content"] for message in json.loads(messages))


def _history(messages: str) -> Iterator[str]:
    """The lines of the last message that begin with a dash, behind its last heading."""
    said = json.loads(messages)
    if said:
        part = said[-1]["content"].rsplit(":\n", 1)[-1]
        yield from (line[2:] for line in part.split("\n") if line.startswith("- "))


CHECKS = (
    user_text_out_of_time,
    item_text_with_a_history,
    as_of_before_what_was_seen,
    made_before_its_data,
    two_texts_for_one_time,
    prompt_shows_a_later_title,
    prompt_shows_more_than_its_history,
    prompt_shows_a_later_rating,
    prompt_names_a_user,
    item_prompt_with_numbers_of_use,
    text_names_the_future,
    text_that_never_changes,
)
