"""How do messages become token ids of a model, so that no word of a title becomes a control token?"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_features.text import clean
from storage.errors import ConfigError

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
"""How SentencePiece vocabularies name the bytes that spell what they have no word for."""

Messages = Sequence[Mapping[str, str]]
"""What a chat model reads: {"role": "system" | "user", "content": ...}."""


class ChatTokens:
    """Counts and encodes chat messages with a model's own tokenizer and chat template.

    The template is rendered once with a sentinel in place of each content and cut there. Its own pieces are parsed as
    the model's authors meant; contents are encoded by a copy of the tokenizer that has forgotten every control token,
    so a title that reads "<|im_end|>" arrives as those ten characters. `tokenizer` is a fast transformers tokenizer;
    `chat_template_kwargs` go to the template (for instance enable_thinking=False).

    Raises ConfigError where the tokenizer is not a fast one, has no chat template, or the template loses a message.
    """

    def __init__(self, tokenizer: Any, *, chat_template_kwargs: Mapping[str, Any] | None = None) -> None:
        from tokenizers import AddedToken, Tokenizer

        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(f"{_name(tokenizer)} has no fast tokenizer (tokenizer.json), which counting tokens needs")
        if not tokenizer.chat_template:
            raise ConfigError(f"{_name(tokenizer)} has no chat template; prompts are chat messages")
        self._tokenizer = tokenizer
        self._kwargs = dict(chat_template_kwargs or {})
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        added = {token["id"]: token for token in whole["added_tokens"]}
        # Added tokens that are spaces or bytes spell text; any other one may mean something to the template.
        control = {i for i, t in added.items() if t["special"] or any(map(str.isalnum, t["content"]))}
        control = control.union(tokenizer.all_special_ids)
        control -= {i for i, t in added.items() if _BYTE.fullmatch(t["content"])}
        self.control_ids = frozenset(control - {tokenizer.unk_token_id})
        """Every token that a template may give meaning to; a content never holds one."""
        self._literals = sorted((added[i]["content"] for i in control if i in added), key=len, reverse=True)

        whole.update(truncation=None, padding=None, post_processor=None)
        self._template = Tokenizer.from_str(json.dumps(whole))
        whole["added_tokens"] = []
        self._content = Tokenizer.from_str(json.dumps(whole))
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        kept = [token for i, token in added.items() if i not in control and i != tokenizer.unk_token_id]
        self._content.add_tokens([AddedToken(t["content"], **{f: t[f] for f in flags}) for t in kept])
        self._moved = {self._content.token_to_id(t["content"]): t["id"] for t in kept}
        self._cut: dict[tuple[str, ...], tuple[tuple[str, ...], list[list[int]], list[int]]] = {}

    @classmethod
    def load(
        cls, model: str, *, revision: str | None = None, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> "ChatTokens":
        """The tokens of the model at a path (or of a name in the local hub cache). Raises ConfigError."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no tokenizer can be loaded from {model!r}: {error}") from error
        return cls(tokenizer, chat_template_kwargs=chat_template_kwargs)

    @property
    def identity(self) -> dict[str, object]:
        """What of the template can change a text."""
        template = self._tokenizer.get_chat_template()
        return {
            "chat_template": hashlib.sha256(template.encode()).hexdigest(),
            "chat_template_kwargs": dict(self._kwargs),
        }

    def encode(self, messages: Messages) -> tuple[int, ...]:
        """Token ids of the whole prompt, the opening of the answer included."""
        roles, pieces, order = self._pieces(tuple(m["role"] for m in messages))
        contents = [m["content"].strip() for m in messages]
        if len(roles) < len(contents):  # the template knows no system message: it opens the user's
            contents = ["\n\n".join(contents)]
        ids = list(pieces[0])
        for place, piece in zip(order, pieces[1:], strict=True):
            ids += self._plain(contents[place])
            ids += piece
        return tuple(ids)

    def count(self, messages: Messages) -> int:
        """Tokens of the whole prompt."""
        return len(self.encode(messages))

    def count_lines(self, lines: Sequence[str]) -> list[int]:
        """Tokens of each line with its line end, as part of a content. The sum is that of the lines together, but for
        a token or two where a tokenizer merges across line ends."""
        return [len(encoding) for encoding in self._content.encode_batch_fast([line + "\n" for line in lines])]

    def _plain(self, text: str) -> list[int]:
        """Ids of a content: whatever it spells, no control token."""
        text = text.encode("utf-8", "ignore").decode()
        ids = [self._moved.get(i, i) for i in self._content.encode(text, add_special_tokens=False).ids]
        if not self.control_ids.isdisjoint(ids):
            # The model's own vocabulary spells a control token (Unigram and word-level ones may): break the literals.
            for literal in self._literals:
                text = text.replace(literal, f"{literal[0]} {literal[1:]}")
            ids = [self._moved.get(i, i) for i in self._content.encode(text, add_special_tokens=False).ids]
        return [i for i in ids if i not in self.control_ids]

    def _pieces(self, roles: tuple[str, ...]) -> tuple[tuple[str, ...], list[list[int]], list[int]]:
        """The template's own ids around the contents, and which content stands at each gap."""
        if roles not in self._cut:
            self._cut[roles] = self._rendered(roles)
        return self._cut[roles]

    def _rendered(self, roles: tuple[str, ...]) -> tuple[tuple[str, ...], list[list[int]], list[int]]:
        from jinja2.exceptions import TemplateError

        sentinels = [f"\ue000{i}\ue001" for i in range(len(roles))]
        chat = [{"role": role, "content": mark} for role, mark in zip(roles, sentinels, strict=True)]
        problem = "it does not show every message exactly once"
        try:
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **self._kwargs)
        except TemplateError as error:
            text, problem = "", str(error)
        if any(text.count(mark) != 1 for mark in sentinels):
            if roles == ("system", "user"):
                return self._rendered(("user",))
            raise ConfigError(f"the chat template of {_name(self._tokenizer)} cannot be used: {clean(problem)}")
        order = sorted(range(len(roles)), key=lambda i: text.index(sentinels[i]))
        pieces, rest = [], text
        for place in order:
            before, rest = rest.split(sentinels[place])
            pieces.append(before)
        pieces.append(rest)
        return roles, [self._template.encode(p, add_special_tokens=False).ids for p in pieces], order


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
