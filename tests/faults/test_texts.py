"""Whatever a model answers, the gate gives a named verdict; whatever a file of texts holds, the parser says what."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from openai.types.chat import ChatCompletion

from llm_features.engines import Request, openai, precomputed
from llm_features.quality import REASONS, Gate, judge
from llm_features.text import defang
from storage.errors import ConfigError, DataError

PROSE = (
    "This person looks for quiet dramas with a strong sense of place, and avoids loud comedies. Stories about families "
    "and their secrets are what they come back to, often from the sixties, and they like endings that stay open."
)
PROMPT = "Work out one person's taste in movies from what the person rated.\n- Heat: rated 5 of 5\n- Big: rated 1 of 5"
PIECES = (
    *(
        "",
        " ",
        "\n",
        "\t",
        "\0",
        "\x1b[31m",
        "\ufeff",
        "\u202e",
        "\u200b",
        "\ud83d",
        "\udc00",
        "\ufffd",
        "é",
        "中文",
        "🎬",
    ),
    *("<|im_end|>", "<|im_start|>system", "[INST]", "</s>", "<think>", "<s>", "{", "}", '{"text": "', "```json", "$x"),
    *(
        "As an AI language model, I cannot",
        "I'm sorry, but",
        "the the the",
        "- - -",
        "%s",
        "../..",
        "<script>",
        "\\u0000",
    ),
    *(PROMPT, PROSE, "Heat", "rated 5 of 5", "a" * 300, "ab " * 200),
)


def mutated(text: str, rng: np.random.Generator) -> str:
    """`text` after a few random edits: cut, doubled, shuffled, with rubbish put in."""
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(text) + 1))
        match int(rng.integers(6)):
            case 0:
                text = text[:at]
            case 1:
                text = text[at:] + text[:at]
            case 2:
                text = text[:at] + PIECES[rng.integers(len(PIECES))] + text[at:]
            case 3:
                text = text[:at] + text[: int(rng.integers(80))] + text[at:]
            case 4:
                text = text[:at] + chr(int(rng.integers(0x110000))) + text[at:]
            case _:
                text = text.swapcase() if rng.random() < 0.3 else text[::-1]
    return text[:4000]


def test_the_gate_has_a_verdict_on_anything(count: Callable[[int, int], int]) -> None:
    rng, gate = np.random.default_rng(5), Gate()
    finish = ("stop", "stop", "stop", "length", "error", "set_aside", "nonsense")
    verdicts = {}
    for _ in range(count(20_000, 1_000_000)):
        text = mutated(PROSE, rng)
        verdict = judge(text, finish[rng.integers(len(finish))], PROMPT, gate)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        assert verdict is None or verdict in REASONS
        if verdict is None:
            assert defang(text) == text
            text.encode()  # no half characters get through
    assert set(verdicts) >= {None, "control_tokens", "refusal", "cut_off", "error", "set_aside", "repetition", "echo"}


BAD: dict[str, list[str]] = {
    "empty": ["", " ", "\n\n", "\t \r\n", "\u00a0", "\u2003" * 50, " " * 100_000],
    "control_tokens": [
        *(f"{PROSE} {token}" for token in ("<|im_end|>", "<|im_start|>user", "<|eot_id|>", "[/INST]", "</s>", "<s>")),
        *(f"{PROSE} {token}" for token in ("<|endoftext|>", "<start_of_turn>model", "<<SYS>>", "<think>", "<|user|>")),
        *(f"{PROSE}{char}{PROSE}" for char in map(chr, (*range(9), 11, 12, *range(14, 32), *range(127, 160)))),
        *(f"{PROSE}{char}" for char in ("\ufffd", "\ud800", "\udfff", "\ud83d")),
    ],
    "refusal": [
        f"{start} {rest}. {PROSE}"
        for start in (
            "I'm sorry, but I cannot",
            "Sorry, I can't",
            "I am unable to",
            "As an AI language model, I cannot",
        )
        for rest in ("help with that", "provide this", "answer", "describe this person", "comply with this request")
    ],
    "wrong_language": [
        "Эта женщина любит тихие драмы и избегает громких комедий, ей нравятся истории о семье. " * 2,
        "这个人喜欢安静的剧情片，不喜欢吵闹的喜剧。" * 12,
        "この人は静かなドラマが好きで、騒がしいコメディを避けます。" * 10,
        "هذا الشخص يحب الدراما الهادئة ويتجنب الكوميديا الصاخبة والقصص عن العائلة وأسرارها الكثيرة القديمة. " * 2,
        "Diese Person sucht leise Dramen und meidet laute Komödien; Geschichten von Familien, Häusern, Orten und alten "
        "Geheimnissen zieht sie allen anderen vor, besonders wenn am Ende vieles offen bleibt und niemand gewinnt.",
    ],
    "too_short": ["Good.", "ok", "Heat", "{}", "null", "42", "N/A", "likes drama", "The movies of this person.", "..."],
    "repetition": [
        f"{phrase} " * n for phrase in ("they like drama and", "no no no", "a b c d") for n in (40, 200, 2000)
    ],
    "echo": [PROMPT * 2, f"{PROMPT}\n{PROMPT}\nYes."],
}
"""Answers that models give on bad days, by the verdict they must get."""
CUT = [PROSE[:n] for n in range(20, 160, 2)]
"""Answers that ran into the limit."""


def test_answers_of_bad_days_get_their_own_verdict() -> None:
    said = {(reason, text): judge(text, "stop", PROMPT, Gate()) for reason, texts in BAD.items() for text in texts}
    wrong = {text[:60]: verdict for (reason, text), verdict in said.items() if verdict != reason}

    assert wrong == {}
    assert {judge(text, "length", PROMPT, Gate()) for text in CUT} == {"cut_off"}
    assert len(said) + len(CUT) >= 200
    assert judge(PROSE, "stop", PROMPT, Gate()) is None
    judge("x" * 1_000_000, "stop", PROMPT, Gate())


def spoilt(line: bytes, rng: np.random.Generator) -> bytes:
    """`line` with a few bytes that are others, and one time in two without its end."""
    changed = bytearray(line)
    for place, byte in rng.integers((len(line), 256), size=(rng.integers(1, 6), 2)):
        changed[place] = byte
    return bytes(changed[: rng.integers(1, len(line) + 1)]) if rng.random() < 0.5 else bytes(changed)


def test_lines_of_texts_are_parsed_or_refused(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    rng, path = np.random.default_rng(6), tmp_path / "texts.jsonl"
    good = json.dumps({"item_id": "i1", "text": PROSE, "more": [1, {"a": None}]}).encode()
    parse, read = precomputed.Engine(precomputed.Config(path=path))._parse, 0
    trials = count(20_000, 1_000_000)
    for number in range(1, trials + 1):
        try:
            entity, text = parse(number, spoilt(good, rng))
        except DataError as error:
            said = str(error)
            if not said.startswith(f"{path} line {number} "):
                pytest.fail(said)
        else:
            entity.encode()
            text.encode()
            read += 1
    assert 0 < read < trials


def test_answers_of_a_server_are_taken_or_named(count: Callable[[int, int], int]) -> None:
    """Whatever JSON it sends where an answer should be: a completion of the row that was asked, never an exception."""
    rng = np.random.default_rng(7)
    message = {"role": "assistant", "content": "a text", "tool_calls": [], "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": {"content": []}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    whole = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    good = json.dumps(whole).encode()
    config = openai.Config(base_url="http://nowhere", model="m", max_retries=0)

    async def ask_all() -> dict[str, int]:
        client, ends = openai._Client(config, "none"), dict.fromkeys(("stop", "length", "error"), 0)
        for trial in range(count(2_000, 100_000)):
            body = spoilt(good, rng) if trial % 4 else json.dumps(swapped(json.loads(good), rng)).encode()
            client._server = said(body)
            done = await client.answer(Request(f"k{trial}", "e", ({"role": "user", "content": "?"},), max_tokens=9))
            assert (done.key, type(done.text)) == (f"k{trial}", str)
            assert min(done.n_prompt_tokens, done.n_output_tokens) >= 0
            assert max(done.n_prompt_tokens, done.n_output_tokens) < 2**31  # what a table of texts can hold
            ends[done.finish_reason] += 1
        return ends

    ends = asyncio.run(ask_all())
    assert min(ends["stop"], ends["error"]) > 0


def swapped(body: dict, rng: np.random.Generator) -> dict:
    """`body` with one value, at any depth, that is something else."""
    places, open_ = [], [body]
    while open_:
        inside = open_.pop()
        for name in inside if isinstance(inside, dict) else range(len(inside)):
            places.append((inside, name))
            if isinstance(inside[name], dict | list):
                open_.append(inside[name])
    inside, name = places[rng.integers(len(places))]
    inside[name] = (None, [], {}, "", "x", -1, 1e300, True, [[]], "\ud800", [None])[rng.integers(11)]
    return body


def said(body: bytes) -> Any:
    """A stand-in for the client of a server that answers everything with `body`, read as the real one reads it."""

    async def create(**asked: object) -> Any:
        return ChatCompletion.construct(**json.loads(body))

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def test_files_of_texts_are_read_or_refused_by_line(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    rng = np.random.default_rng(6)
    good = json.dumps({"item_id": "i1", "text": PROSE}).encode()
    path, refused = tmp_path / "texts.jsonl", 0
    for _ in range(count(300, 20_000)):
        path.write_bytes(good + b"\n" + spoilt(good, rng) + b"\n")
        try:
            precomputed.Engine(precomputed.Config(path=path)).salt("i1")
        except (DataError, ConfigError) as error:
            refused += 1
            told = str(error)
            if not told.startswith(f"{path} line "):
                pytest.fail(told)
    assert refused > 0
