"""The gate: every reason by name, honest texts let through, no text it cannot judge."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_features import prompt_specs
from llm_features.quality import REASONS, Gate, judge

GATE = Gate()
PROMPT = (
    "Describe the movie named at the end, so that a reader can tell who would like it. Write one or two short "
    "sentences on each of these points, in this order, and begin each with the name of the point:\n"
    "- genre\n- director and cast\n"
    "- mood and tone\nSay what you know of this movie.\n\nThe movie: Heat (1995)\ngenres: Action, Crime, Thriller\n"
    "- Toy Story (1995): 4 of 5 stars\n- Jumanji (1995): 3 of 5 stars\n- Casino (1995): 5 of 5 stars\n"
    "- Sabrina (1995): 4 of 5 stars\n- Nixon (1995): 4 of 5 stars"
)
GOOD = (
    "Genre: Heat is a crime drama that moves like a thriller. Director and cast: Michael Mann directs Al Pacino and "
    "Robert De Niro, who share the screen for the first time. Mood and tone: the film is cool and melancholy, and the "
    "quiet of its night scenes makes the violence more shocking than it would be elsewhere."
)
HONEST = [
    GOOD,
    "This person looks for slow dramas with a strong sense of place, and avoids loud comedies. The likes of Fargo and "
    "Heat, both rated high, show a taste for crime told from both sides of the law.",
    "Kind: a lipstick that is likely to be matte. Maker: the name suggests a small brand from Korea, but this is a "
    "guess. Style: the colours are warm and made for the evening.",
    "Amélie is a whimsical comedy by Jean-Pierre Jeunet with Audrey Tautou. It is set in a dreamlike Montmartre, and "
    "its warm colours, accordion music and fairy-tale logic have made it one of the best-loved French films.",
    '"I Can\'t Sleep" (1994) is a French drama by Claire Denis. It follows a Lithuanian woman in Paris, and her path '
    "crosses that of a killer. The film is quiet, and it cares more for mood than for plot.",
    "The reader of this book will find jokes about 1 < 2, [brackets] and a <b>bold</b> claim that costs $5 or more. It "
    "is a short text on mathematics for children, and it is said to be funny.",
    "genre: the person likes fantasy and horror, and dislikes western. mood: the person likes tense and dreamy, and "
    "dislikes cheerful. era: the person likes medieval, and dislikes wartime. theme: the person likes exile.",
]
BAD: dict[str, list[str]] = {
    "empty": ["", " ", "\n\n\t", "\u2003", " \r\n "],
    "control_tokens": [
        GOOD + "<|im_end|>",
        "<|im_start|>assistant\n" + GOOD,
        GOOD + "</s>",
        GOOD.replace("Mood", "[/INST] Mood"),
        "<think>\n</think>\n" + GOOD,
        GOOD + "<end_of_turn>",
        GOOD.replace("cool", "co\x00ol"),
        GOOD + "\ufffd\ufffd",
        GOOD + "\ud800",
    ],
    "refusal": [
        "I'm sorry, but I can't help with that request, because it asks about the private life of a person.",
        "I cannot provide a description of this movie, as I have no information about it in my training data.",
        "As an AI language model, I do not watch films, but here is a guess about what this one may be like for you.",
        "Unfortunately, I do not have any information about this movie, so that I can only guess at what it is.",
        "I’m unable to describe the taste of this person from the history, which is too short to say anything of.",
        "Sorry, I can't do that.",
        "I apologize, but the movie that is named at the end is not one that I know, so I will not describe it here.",
        "There is not enough information to say what this person would like, and it would be wrong to guess at it.",
        "I don't have access to the ratings of this person, so that the taste is not something I can tell you about.",
    ],
    "too_short": [
        "A good film.",
        "Genre: crime.",
        "2.",
        "Heat is a film by Michael Mann.",
        "the " * 3 + "end of it all",
    ],
    "repetition": [
        "the film is good " * 30,
        "ha " * 80,
        GOOD + " It is a film about a film." * 30,
        "a" * 4000,
        "good,bad," * 500,
        "Genre: it is likely to be varied. " * 12 + GOOD,
    ],
    "echo": [
        PROMPT,
        PROMPT[:300],
        "Sure! " + PROMPT.split("\n\n")[0] + " This is what is asked of me.",
        "\n".join(PROMPT.split("\n")[-5:]) + " are the movies that this person watched, and they were liked.",
        PROMPT.upper(),
        "  ".join(PROMPT.split()),
    ],
    "wrong_language": [
        "基于用户喜欢的电影，推断出以下信息：用户喜欢的电影类型是剧情片。用户喜欢的剧情类型是复杂的。",
        "Этот человек любит медленные драмы и избегает громких комедий; ему нравятся фильмы о преступлениях и любви.",
        "Cette personne aime les drames lents et évite les comédies bruyantes; elle préfère les films policiers où le "
        "crime est raconté des deux côtés de la loi, avec une grande attention aux lieux.",
        "Diese Person mag langsame Dramen und meidet laute Komödien; besonders gern sieht sie Filme, in denen ein "
        "Verbrechen von beiden Seiten des Gesetzes erzählt wird, mit viel Sinn für Orte.",
        "Esta persona busca dramas lentos con un fuerte sentido del lugar y evita las comedias ruidosas; le gustan las "
        "películas de crimen contadas desde los dos lados de la ley.",
        "هذا الشخص يحب الأفلام الدرامية البطيئة ويتجنب الأفلام الكوميدية الصاخبة ويفضل قصص الجريمة",
        "la1 kq zz9 plo mmw ikx oop wqe rty uio pas dfg hjk lzx cvb nmq wer tyu iop asd fgh jkl zxc vbn",
    ],
    "error": [],
    "set_aside": [],
    "cut_off": [],
}
CLOSE = {
    "control_tokens": [
        GOOD + text
        for text in (
            " 3 < 4 > 2.",
            " [REC] and [sic].",
            " <i>Heat</i>",
            " It costs $5 | {x}.",
            " I <3 it.",
            "\r\n\tAnd so on.",
        )
    ],
    "refusal": [
        start + GOOD
        for start in (
            "Sorry to Bother You (2018) is nothing like it. ",
            "Sorry, Wrong Number (1948) is a film noir, too. ",
            "I Can't Sleep (1994) is quieter. ",
            "I Know What You Did Last Summer (1997) is louder. ",
            "As an AI drama it is ahead of its time. ",
            "David lives as an AI among people. ",
            "Unfortunately for its hero, the film ends badly. ",
        )
    ],
    "too_short": [" ".join(GOOD.split()[:n]) for n in (20, 21, 22, 25, 30)],
    "repetition": [
        GOOD + " The end. The end.",
        "Genre: likes crime, avoids comedy. Mood: likes cool, avoids warm. Era: likes now, avoids then. Pace: likes "
        "slow, avoids quick. That is all there is to say of the taste of this person for now.",
        "She said that he said that she said that he said that it was of no use to say that they had said it before.",
        GOOD + " " + "https://example.org/" + "a" * 80,
        " ".join(f"Film {i} is film number {i} of the {i} films that it has." for i in range(9)),
    ],
    "echo": [
        "The movie Heat (1995) is of the genres action, crime and thriller. " + GOOD,
        GOOD + " Toy Story (1995): 4 of 5 stars.",
        "Genre, director and cast, mood and tone are as follows. " + GOOD,
        GOOD + " It is for a reader who would like it.",
        GOOD.upper(),
    ],
    "wrong_language": [
        GOOD + " 七人の侍 is of its kind.",
        GOOD + " Its Russian title is Схватка.",
        GOOD + " In French: la chaleur de la nuit.",
        "Amélie, Léon, Das Boot, La Vita è bella and Der Untergang are the films that this person rated highest: they "
        "are European, and they have a heart.",
        GOOD.replace(" ", "\u00a0 "),
    ],
}
CASES = [(reason, text) for reason, texts in BAD.items() for text in texts]


def test_every_reason_is_tested() -> None:
    assert set(REASONS) == set(BAD)
    assert min(len(texts) for reason, texts in BAD.items() if reason not in ("error", "set_aside", "cut_off")) >= 5


@pytest.mark.parametrize("text", HONEST)
def test_honest_texts_pass(text: str) -> None:
    assert judge(text, "stop", PROMPT, GATE) is None


@pytest.mark.parametrize("text", [text for texts in CLOSE.values() for text in texts])
def test_texts_that_come_close_pass(text: str) -> None:
    assert judge(text, "stop", PROMPT, GATE) is None


@pytest.mark.parametrize("title", ["I Don't Know How She Does It", "I'm Sorry, I Can't", "I Am Not Able to Dance"])
def test_a_title_that_reads_like_a_refusal_is_none(title: str) -> None:
    text = f'"{title}" is a comedy. {GOOD}'

    assert judge(text, "stop", f"The movie: {title}", GATE) is None
    assert judge(text, "stop", PROMPT, GATE) == "refusal"


@pytest.mark.parametrize(("reason", "text"), CASES, ids=[f"{reason}-{i}" for i, (reason, _) in enumerate(CASES)])
def test_bad_texts_are_rejected_by_name(reason: str, text: str) -> None:
    assert reason == judge(text, "stop", PROMPT, GATE)


@pytest.mark.parametrize("text", HONEST[:5])
@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("length", "cut_off"), ("error", "error"), ("abort", "error"), ("", "error"), ("set_aside", "set_aside")],
)
def test_what_the_engine_said_comes_first(text: str, finish_reason: str, reason: str) -> None:
    assert reason == judge(text, finish_reason, PROMPT, GATE)
    assert reason == judge(text, finish_reason, PROMPT, None)


def test_a_failed_prompt_with_no_text_is_an_error_and_not_empty() -> None:
    assert judge("", "error", PROMPT, GATE) == "error"
    assert judge("", "length", PROMPT, GATE) == "empty"


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"min_words": 3}, "A good film that is liked by all"),
        ({"max_echo": 1.0}, PROMPT[:300]),
        ({"max_repetition": 1.0}, "the film is good " * 30),
        ({"script": "any", "language": "any", "min_words": 1}, BAD["wrong_language"][0]),
        ({"language": "any"}, BAD["wrong_language"][2]),
        ({"min_common_words": 0.0}, BAD["wrong_language"][-1]),
        ({"max_other_script": 1.0, "language": "any", "min_words": 1}, BAD["wrong_language"][1]),
    ],
)
def test_thresholds_are_the_prompts_own(gate: dict, text: str) -> None:
    assert judge(text, "stop", PROMPT, GATE) is not None
    assert judge(text, "stop", PROMPT, Gate(**gate)) is None


def test_text_made_by_rule_is_only_asked_to_be_there() -> None:
    assert judge("Heat. Genres: crime.", "stop", PROMPT, None) is None
    assert judge(" ", "stop", PROMPT, None) == "empty"


PIECES = st.sampled_from(["<|im_end|>", "the ", "I cannot ", "日本", "\x00", "\ud800", "[INST]", "a" * 60, PROMPT[:80]])


@given(
    st.one_of(st.text(st.characters(exclude_categories=()), max_size=300), st.lists(PIECES, max_size=60).map("".join)),
    st.one_of(st.sampled_from(["stop", "length", "error"]), st.text(max_size=5)),
    st.text(st.characters(exclude_categories=()), max_size=100),
)
def test_no_text_is_beyond_judgement(text: str, finish_reason: str, prompt: str) -> None:
    assert judge(text, finish_reason, prompt, GATE) in (None, *REASONS)


def test_a_megabyte_is_judged() -> None:
    """Each in a moment: a pattern that backtracks would run into the test's time limit."""
    for text in (
        "word " * 200_000,
        "x" * 1_000_000,
        "<" * 1_000_000,
        "sorry " * 170_000,
        "日" * 300_000,
        " \n" * 500_000,
    ):
        assert judge(text, "stop", PROMPT, GATE) is not None


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "prompt", "accepted"),
    [
        # All but the one that is empty.
        ("item_knowledge_deepseek-chat.jsonl", "item_knowledge", 0.999),
        # A small model's: 2 % loop, answer in Chinese or break off.
        ("user_profiles_llama3-chatqa-8b.jsonl", "user_preference", 0.97),
    ],
)
def test_texts_of_real_models_pass(realdata: Path, file: str, prompt: str, accepted: float) -> None:
    lines = (realdata / "ml-1m-text" / file).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    gate = prompt_specs.load(prompt).gate
    counts = Counter(judge(text, "stop", PROMPT, gate) for text in texts)

    assert counts[None] >= accepted * len(texts)
    assert set(counts) <= {None, "empty", "repetition", "wrong_language", "too_short"}
