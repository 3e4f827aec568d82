"""What if the texts exist already? Takes them from a JSON Lines file: {"item_id" | "user_id" | "entity_id", "text"}."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel

from llm_features import engines
from llm_features.engines import Completion, Request
from storage.errors import ConfigError, DataError

IDS = ("item_id", "user_id", "entity_id")


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the engine."""

    path: Path
    """The file. Further fields of a line are ignored; an entity without a line has the empty text."""


class Engine(engines.Engine):
    """Looks texts up. The text is part of the key, so a changed line is one new prompt and the others stay cached.

    Raises ConfigError where the file does not exist, DataError naming file and line where a line is not as it must be.
    """

    is_model = False

    def __init__(self, config: Config) -> None:
        self._path = config.path

    @property
    def identity(self) -> Mapping[str, object]:
        """Nothing but the name: what decides a text is the text, which is its salt."""
        return {"engine": "precomputed"}

    def salt(self, entity_id: str) -> str:
        """Hash of the entity's text."""
        return hashlib.sha256(self._texts.get(entity_id, "").encode()).hexdigest()

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        """Answer each request in order."""
        for request in requests:
            yield Completion(request.key, self._texts.get(request.entity_id, ""), "stop")

    @cached_property
    def _texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        entity, text = self._parse(number, line)
                        if entity in texts:
                            raise DataError(f"{self._path} line {number}: {entity!r} has a text already")
                        texts[entity] = text
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be read: {error.strerror}") from error
        return texts

    def _parse(self, number: int, line: bytes) -> tuple[str, str]:
        where, wanted = f"{self._path} line {number}", f'{{"text": ...}} and one of {", ".join(IDS)}'
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error}); it must hold {wanted}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is not an object; it must hold {wanted}")
        ids = [row[name] for name in IDS if name in row]
        if len(ids) != 1 or not isinstance(ids[0], str | int) or isinstance(ids[0], bool):
            raise DataError(f"{where} has the ids {ids}; it must hold {wanted}")
        text = row.get("text")
        if not isinstance(text, str):
            raise DataError(f"{where} has the text {text!r:.40}; it must be a string")
        # JSON can spell half a character (a lone surrogate), which no file can hold.
        return str(ids[0]), text.encode("utf-8", "replace").decode()
