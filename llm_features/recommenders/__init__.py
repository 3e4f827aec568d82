"""What does an LLM say when it is asked directly whether a user would like an item? For comparison only.

One prompt a candidate, answered by one word, as TALLRec asks (Bao et al. 2023, arXiv 2305.00447, section 3.1). What the
prompts of one user share stands first, so an engine with a prefix cache reads it once. Serving never does this.
"""

from collections.abc import Sequence
from string import Template

import polars as pl

from llm_features import domains
from llm_features.engines import Engine, Request
from llm_features.facts import ItemFacts, UserFacts, attribute_lines, attributes_of, rating_scale
from llm_features.prompts import PromptSpec, Renderer
from llm_features.tokens import Messages
from llm_features.wanted import ItemRows
from storage.errors import GenerationError
from storage.interactions import Dataset

MAX_HISTORY = 30
"""Interactions that a prompt shows at most, the newest."""
ROOM = 256
"""Tokens kept free for the candidate."""

PROMPT = PromptSpec(
    name="yes_no",
    version=1,
    entity="user",
    system="You decide which $plural a person would like. Answer with one word: yes or no.",
    user="About the person:\n$profile\n\nThe $plural this person $verb, from the oldest to the newest:\n$history",
    max_tokens=1,
    budget=1400,
)
QUESTION = Template(
    "$content\n\nA $singular this person does not know: $about\n\nWould this person like it? yes or no:"
)


class YesNo:
    """Asks `engine` about users and items of a dataset, by all that the dataset says of them."""

    def __init__(self, dataset: Dataset, engine: Engine) -> None:
        domain = domains.load(dataset.domain)
        items, ids = ItemRows(dataset, domain), dataset.items["item_id"].to_list()
        self._engine, self._domain = engine, domain
        self._items: dict[str, ItemFacts] = dict(zip(ids, items.facts(range(len(ids))), strict=True))
        users = dataset.users["user_id"].to_list()
        self._users = dict(zip(users, attributes_of(dataset.users, dataset.attributes("user")), strict=True))
        rows = dataset.interactions.group_by("user_id", maintain_order=True).agg(
            pl.col("item_id").tail(MAX_HISTORY), pl.col("rating").fill_nan(None).tail(MAX_HISTORY)
        )
        self._histories = {user: tuple(zip(items, ratings, strict=True)) for user, items, ratings in rows.iter_rows()}
        self._best = rating_scale(dataset.interactions["rating"].fill_nan(None))
        length = None if engine.max_model_len is None else engine.max_model_len - ROOM
        self._renderer = Renderer(PROMPT, domain, tokens=engine.tokens(), max_model_len=length)

    def requests(self, user_id: str, item_ids: Sequence[str]) -> list[Request]:
        """One request for each item. Raises GenerationError where the user's history does not fit the model."""
        history = tuple((self._items[item], rating) for item, rating in self._histories.get(user_id, ()))
        facts = UserFacts(self._domain, self._users[user_id], history, self._best)
        (rendered,) = self._renderer.render([facts])
        if rendered is None:
            raise GenerationError(f"not even one line about user {user_id!r} fits the model")
        return [
            Request(f"{place}:{item}", user_id, self._about(rendered.messages, self._items[item]), PROMPT.max_tokens)
            for place, item in enumerate(item_ids)
        ]

    def ask(self, user_id: str, item_ids: Sequence[str]) -> list[bool | None]:
        """For each item whether the model said yes; None where it said neither yes nor no.

        Raises EngineDied, and GenerationError where the model refuses a prompt.
        """
        requests = self.requests(user_id, item_ids)
        said: dict[str, str] = {}
        for completion in self._engine.generate(requests, in_flight=len(requests)):
            if completion.finish_reason == "error":
                raise GenerationError(f"the model gave no answer: {completion.text}")
            said[completion.key] = completion.text.strip().lower()
        answers = [said[request.key] for request in requests]
        return [True if text.startswith("yes") else False if text.startswith("no") else None for text in answers]

    def _about(self, messages: Messages, item: ItemFacts) -> Messages:
        about = "\n".join([item.title, *attribute_lines(item.attributes)])
        *before, last = messages
        content = QUESTION.substitute(content=last["content"], singular=self._domain.singular, about=about)
        return (*before, {**last, "content": content})
