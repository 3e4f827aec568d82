"""Every engine keeps the contract; the two that need no model write what they should."""

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
from pydantic import BaseModel, ValidationError

from llm_features import domains, engines, prompt_specs
from llm_features.engines import Completion, EngineDied, Request, precomputed, prompt, template
from llm_features.facts import ItemFacts, UserFacts
from llm_features.quality import judge
from storage.errors import ConfigError, DataError, GenerationError, NightshiftError
from storage.interactions import Dataset
from storage.plugins import available, load
from tests.llm_features.test_plan import ITEM, Store, with_value

MOVIES = domains.load("movies")
HEAT = ItemFacts(MOVIES, "Heat (1995)", {"genres": ("Action", "Crime"), "year": 1995})
FARGO = ItemFacts(MOVIES, "Fargo (1996)", {"genres": ("Crime", "Drama"), "year": 1996})
CLUELESS = ItemFacts(MOVIES, "Clueless (1995)", {"genres": ("Comedy",), "year": 1995})


def request(facts: object, key: str = "k") -> Request:
    return Request(key, "e", ({"role": "user", "content": "?"},), 10, facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", available(engines))
def test_every_engine_keeps_the_contract(name: str) -> None:
    module = load(engines, name)

    assert issubclass(module.Config, BaseModel)
    assert module.Config.model_config.get("extra") == "forbid"
    assert module.Config.model_config.get("frozen")
    assert engines.Engine in module.Engine.__mro__
    with pytest.raises(ValidationError, match="Extra inputs"):
        module.Config(no_such_option=1)


def test_importing_the_engines_imports_no_model_library() -> None:
    heavy = ("vllm", "transformers", "torch", "openai", "tokenizers", "jinja2")
    names = [f"llm_features.engines.{name}" for name in available(engines)]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; import llm_features.plan; "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])

    assert done.stdout.strip() == "[]"


def test_an_engine_that_died_says_what_is_unfinished() -> None:
    error = EngineDied("killed by signal 9", (key for key in "ab"))

    assert isinstance(error, GenerationError)
    assert isinstance(error, NightshiftError)
    assert error.unfinished == ("a", "b")
    assert str(error) == "killed by signal 9"


def test_template_of_an_item() -> None:
    engine = template.Engine(template.Config())

    expected = "Heat (1995) is a movie. Genres: Action, Crime. Year: 1995."
    assert [Completion("k", expected, "stop")] == list(engine.generate([request(HEAT)], in_flight=1))


def test_template_of_a_user() -> None:
    history = ((HEAT, 5.0), (CLUELESS, 2.0), (FARGO, 4.0), (HEAT, 4.5))
    engine = template.Engine(template.Config())
    facts = UserFacts(MOVIES, {"age": "25-34"}, history, 5.0)
    text = next(engine.generate([request(facts)], in_flight=1)).text

    assert text == (
        "This person watched 4 movies of late. 3 were liked and 1 were not; the mean rating is 3.9. "
        "Liked: genres Crime (100 %), Action (67 %). Liked: year on average 1995. "
        "Liked most recently: Heat (1995); Fargo (1996); Heat (1995). "
        "Not liked: genres Comedy (100 %). Not liked: year on average 1995. Not liked most recently: Clueless (1995). "
        "Age: 25-34."
    )


def test_template_without_ratings_likes_everything() -> None:
    engine = template.Engine(template.Config())
    facts = UserFacts(MOVIES, {}, ((HEAT, None), (FARGO, None)))
    text = next(engine.generate([request(facts)], in_flight=1)).text

    assert text.startswith("This person watched 2 movies of late. Liked: genres Crime (100 %).")
    assert "rating" not in text


def test_what_counts_as_a_like_is_part_of_the_identity() -> None:
    low, high = (template.Engine(template.Config(liked_above=bound)) for bound in (3.0, 6.0))
    facts = UserFacts(MOVIES, {}, ((HEAT, 5.0),), 10.0)

    assert low.identity != high.identity
    assert "1 were liked" in next(low.generate([request(facts)], in_flight=1)).text
    assert "0 were liked" in next(high.generate([request(facts)], in_flight=1)).text


def test_template_needs_facts() -> None:
    with pytest.raises(GenerationError, match="no facts of 'e'"):
        list(template.Engine(template.Config()).generate([request(None)], in_flight=1))


def texts(path: Path, *rows: dict | str) -> precomputed.Engine:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return precomputed.Engine(precomputed.Config(path=path))


def test_precomputed_texts_are_looked_up(tmp_path: Path, small_dataset: Dataset) -> None:
    rows = [{"item_id": f"i{i}", "text": f"About {i}", "more": 1} for i in range(10)]
    engine = texts(tmp_path / "texts.jsonl", *rows, "", {"item_id": "i10", "text": ""})
    planned = Store(tmp_path).plan(small_dataset, ITEM, engine)
    found = {
        r.entity_id: c for r, c in zip(planned.requests, engine.generate(planned.requests, in_flight=4), strict=True)
    }

    assert {f"i{i}": f"About {i}" for i in range(10)} | {"i10": "", "i11": ""} == {k: c.text for k, c in found.items()}
    assert judge(found["i10"].text, found["i10"].finish_reason, "", ITEM.gate) == "empty"


def test_a_changed_line_is_one_prompt(tmp_path: Path, small_dataset: Dataset) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "texts.jsonl"
    rows = [{"item_id": f"i{i}", "text": f"About {i}"} for i in range(12)]
    first = store.night(small_dataset, ITEM, texts(path, *rows))
    unchanged = store.night(small_dataset, ITEM, texts(path, *reversed(rows)))
    changed = store.night(small_dataset, ITEM, texts(path, *rows[:3], {"item_id": "i3", "text": "New"}, *rows[4:]))
    retitled = with_value(small_dataset, "items", "i5", "title", "Another")
    titled = store.night(retitled, ITEM, texts(path, *rows[:3], {"item_id": "i3", "text": "New"}, *rows[4:]))

    assert len(first.requests) == 12
    assert len(unchanged.requests) == 0
    assert [r.entity_id for r in changed.requests] == ["i3"]
    assert [r.entity_id for r in titled.requests] == ["i5"]


def test_moving_the_file_changes_nothing(tmp_path: Path) -> None:
    here, there = (texts(tmp_path / name, {"entity_id": 7, "text": "x"}) for name in ("a", "b"))

    assert here.identity == there.identity
    assert here.salt("7") == there.salt("7") != here.salt("8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"item_id": "2", "text": "torn', "is not JSON"),
        ('["2", "x"]', "is not an object"),
        ('{"text": "x"}', r"has the ids \[\]"),
        ('{"item_id": "2", "user_id": "2", "text": "x"}', "has the ids"),
        ('{"item_id": null, "text": "x"}', r"has the ids \[None\]"),
        ('{"item_id": "2"}', "has the text None"),
        ('{"item_id": "2", "text": 5}', "has the text 5"),
        ('{"item_id": "1", "text": "again"}', "'1' has a text already"),
        ("\x00\x01\x02", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    engine = texts(tmp_path / "mine.jsonl", {"item_id": "1", "text": "x"}, line)

    with pytest.raises(DataError, match=f"mine.jsonl line 2:? .*{message}"):
        engine.salt("1")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b'{"item_id": "1", "text": "caf\xe9"}\n')

    with pytest.raises(DataError, match=r"mine.jsonl line 1 is not JSON"):
        precomputed.Engine(precomputed.Config(path=tmp_path / "mine.jsonl")).salt("1")


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    engine = texts(tmp_path / "mine.jsonl", '{"item_id": "e", "text": "half \\ud800"}')

    assert next(engine.generate([request(None)], in_flight=1)).text == "half ?"
    assert len(engine.salt("e")) == 64


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.jsonl cannot be read: No such file"):
        precomputed.Engine(precomputed.Config(path=tmp_path / "nowhere.jsonl")).salt("1")


@pytest.mark.realdata
def test_the_one_empty_text_of_ml_1m_ends_as_empty(realdata: Path) -> None:
    path = realdata / "ml-1m-text" / "item_knowledge_deepseek-chat.jsonl"
    engine = precomputed.Engine(precomputed.Config(path=path))
    ids = [json.loads(line)["item_id"] for line in path.read_text(encoding="utf-8").splitlines()]
    requests = [Request(item, item, ({"role": "user", "content": "?"},), 10) for item in ids]
    gate = prompt_specs.load("item_knowledge").gate
    reasons = [judge(answer.text, answer.finish_reason, "?", gate) for answer in engine.generate(requests, in_flight=8)]

    assert len(reasons) == 3883
    assert [reason for reason in reasons if reason] == ["empty"]


def test_the_prompt_itself_is_the_text() -> None:
    engine = prompt.Engine(prompt.Config())
    asked = Request("k", "e", ({"role": "system", "content": "?"}, {"role": "user", "content": "Heat (1995)"}), 1)

    assert [Completion("k", "Heat (1995)", "stop")] == list(engine.generate([asked], in_flight=1))


def test_a_domain_of_some_factors() -> None:
    some = MOVIES.only(["music", "genre"])

    assert some.factors == ("genre", "music")  # in the domain's own order, so that one choice has one key
    assert some.identity != MOVIES.identity
    assert MOVIES.only([]) is MOVIES
    with pytest.raises(ConfigError, match="no factor 'smell'; there are: genre, director and cast"):
        MOVIES.only(["smell"])
