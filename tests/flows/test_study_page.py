"""A page stands alone, says what the tables say, and takes nothing from data as markup."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.studies import page
from flows.studies.page import ctr, sequential
from flows.studies.page.charts import Axis, Level, Point, Row, Series, curves, dots
from flows.studies.page.colours import styles
from flows.studies.page.scales import Scale, apart, percent, plain, scale, ticks
from flows.studies.page.seeds import over_seeds
from flows.studies.sequential.tables import CLAIMS, RESULTS
from tests.flows.made_up import ARMS, FRACTIONS, ctr_tables

META = {"title": "Sample efficiency", "lead": "How many rows does text save?", "Dataset": "ml-1m"}
VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = '<script>alert("1")</script>'


class Outline(HTMLParser):
    """Tags with their attributes, and the words outside style and script; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script") and data.strip():
            self.words.append(" ".join(data.split()))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def sequential_tables(arm: str = "text") -> dict[str, pl.DataFrame]:
    values = {
        "ndcg@10": 0.1,
        "hr@10": 0.2,
        "mrr@10": 0.1,
        "coverage@10": 0.5,
        "serendipity@10": 0.1,
        "novelty@10": 11.0,
    }
    rows = [
        ("sessions", model, one, seed, part, metric, value * (1 + seed / 10), 40)
        for model, arms in (("sasrec", ("base", arm)), ("popular", ("",)))
        for one in arms
        for seed in range(2)
        for part in ("all", "cold_items")
        for metric, value in values.items()
    ]
    numbers = ("ndcg@10", 0.1, 0.01, 0.002, 0.02, 40)
    claims = [("sasrec", arm, "base", part, *numbers, "holds") for part in ("all", "cold_items")]
    return {
        "results": pl.DataFrame(rows, schema=RESULTS, orient="row"),
        "claims": pl.DataFrame(claims, schema=CLAIMS, orient="row"),
    }


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {"ctr": ctr.render(ctr_tables(), META), "sequential": sequential.render(sequential_tables(), META)}


@pytest.mark.parametrize("kind", ["ctr", "sequential"])
def test_a_page_asks_for_nothing_and_runs_its_own_script_only(pages: dict[str, str], kind: str) -> None:
    text = pages[kind]
    outline = Outline(text)

    assert not re.findall(r"(?:https?:)?//\w|url\(|@import", text.split("<body>")[0])
    assert not [tag for tag, at in outline.tags if {"src", "href", "srcset", "action", "style"} & set(at)]
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


@pytest.mark.parametrize("kind", ["ctr", "sequential"])
def test_every_figure_has_words_and_a_table(pages: dict[str, str], kind: str) -> None:
    outline = Outline(pages[kind])
    charts = [at for tag, at in outline.tags if tag == "svg"]

    assert outline.count("figure") == outline.count("figcaption") >= 3
    assert outline.words.count("The numbers of this figure") == outline.count("figure")
    assert all(at["role"] == "img" and at["aria-label"] for at in charts)
    assert len(charts) >= outline.count("figure")


def test_the_page_says_what_the_claims_say(pages: dict[str, str]) -> None:
    words = Outline(pages["ctr"]).words

    assert words.count("2×") == 3  # half of the rows with item text equal all rows without, for each model
    assert "fewer labelled rows for din: 50 % of the rows with item text equal all rows without" in words
    assert "deepfm: item text over base" in words
    assert "+0.0070 [+0.0050, +0.0090] at 100 %" in words
    assert [w for w in words if re.fullmatch(r"\d+ (hold|do not .*|with.*)", w)] == [
        "18 hold",
        "12 without enough evidence",
    ]
    assert not [word for word in words if word.startswith("Uncontrolled")]
    assert words.count("10 % ✗") == 6  # the savings of two arms of three models


def test_text_without_a_control_is_called_uncontrolled() -> None:
    tables = ctr_tables()
    bare = {**tables, "claims": tables["claims"].with_columns(controlled=pl.col("arm") != "title")}

    assert any(word.startswith("Uncontrolled: title stands beside no permuted and random") for word in words(bare))
    assert any(
        word.startswith("Uncontrolled: nobody compared text with")
        for word in Outline(sequential.render(sequential_tables(), META)).words
    )


def test_the_table_of_sequential_models_has_every_difference_to_the_base() -> None:
    tables = sequential_tables()
    numbers = ("ndcg@10", 0.1, -0.001, -0.003, 0.002, 40)
    control = [("sasrec", "permuted", "base", "all", *numbers, "does not hold")]
    beaten = [("sasrec", "text", "permuted", "all", *numbers, "does not hold")]
    more = pl.DataFrame(control + beaten, schema=CLAIMS, orient="row")
    strangers = tables["results"].filter(arm="text").with_columns(arm=pl.lit("permuted"))
    said = Outline(
        sequential.render({k: pl.concat([tables[k], v]) for k, v in [("claims", more), ("results", strangers)]}, META)
    ).words

    shown = said[said.index("less the base's") : said.index("Figures")]
    assert shown.count("sasrec") == 3
    assert [shown[i - 1 : i + 1] for i, word in enumerate(shown) if "[" in word] == [
        ["0.1050", "+0.0100 [+0.0020, +0.0200]"],
        ["0.1050", "−0.0010 [−0.0030, +0.0020]"],
    ]
    assert not [word for word in said if word.startswith("Uncontrolled")]


def test_rows_are_saved_down_to_the_first_share_that_does_not_hold() -> None:
    def said(*holding: float) -> list[str]:
        verdict = pl.when(pl.col("fraction").is_in(holding)).then(pl.lit("holds")).otherwise(pl.lit("does not hold"))
        tables = ctr_tables(("din",))
        claims = tables["claims"].with_columns(verdict=pl.when(claim=ctr.SAVING).then(verdict).otherwise("verdict"))
        return words({**tables, "claims": claims})

    assert "2×" in said(0.01, 0.5, 1.0)  # what holds below a gap is chance
    assert "100×" in said(0.01, 0.1, 0.5, 1.0)
    assert "—" in said(0.5)
    assert "—" in said(1.0)
    assert "✗ does not hold" in said(1.0)


def test_one_fraction_shows_every_arm_and_no_curves() -> None:
    tables = {name: table.filter(fraction=1.0) for name, table in ctr_tables().items()}
    said = words({**tables, "calibration": tables["calibration"].clear()})

    assert {"Every arm", "What each arm adds to the base", "Gain by training rows of the item"} <= set(said)
    assert not {"Calibration", "How few rows with text equal all rows without"} & set(said)


def test_a_warning_of_the_study_is_on_the_page() -> None:
    assert "Untuned." in Outline(ctr.render(ctr_tables(), {**META, "warnings": ["Untuned."]})).words


@pytest.mark.parametrize("evil", [EVIL, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a & b <i>"])
def test_names_are_words_wherever_they_stand(evil: str) -> None:
    tables = {
        name: table.with_columns(pl.col("arm").replace("item text", evil), pl.col("model").replace("din", evil))
        for name, table in ctr_tables().items()
    }
    hurt = ctr.render(tables, {"title": evil, "lead": evil, "warnings": [evil], evil: evil})
    plain_page = ctr.render(ctr_tables(), {"title": "t", "lead": "l", "warnings": ["w"], "n": "v"})
    other = sequential.render(sequential_tables(evil), {"title": evil, "lead": evil, evil: evil})

    counted = [sorted(tag for tag, _ in Outline(text).tags) for text in (hurt, plain_page)]
    assert counted[0] == counted[1]
    assert Outline(hurt).words.count(evil) >= 5  # title twice, lead, warning, how it was made
    assert not {"img", "i"} & {tag for tag, at in Outline(other).tags if tag == "img" or (tag == "i" and at)}
    assert Outline(other).count("script") == 1


def test_the_same_tables_give_the_same_page(pages: dict[str, str]) -> None:
    assert ctr.render(ctr_tables(), META) == pages["ctr"]


def test_curves_and_dots_lie_where_their_numbers_say() -> None:
    series = Series("a", "c1", (Point(1, 0.5, 0.4, 0.6), Point(10, 0.7, 0.6, 0.8), Point(100, 0.9, 0.85, 0.95)))
    chart = curves(
        [series, Series("none", "c2", ())], Axis("x", log=True), Axis("y"), alt="said", levels=[Level(0.5, "")]
    )
    x, y = ([float(dot.attrib[name]) for dot in chart.iter("circle")] for name in ("cx", "cy"))
    rows = [Row(f"r{i}", (("a", "c1", value, None, None),)) for i, value in enumerate((0.0, 1.0, 2.0))]
    across = [float(dot.attrib["cx"]) for dot in dots(rows, "x", alt="said").iter("circle")]

    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)  # a decade each
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)
    assert y[0] > y[2]  # up is more
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.11)
    assert [text.text for text in chart.iter("text") if text.attrib["class"] == "name c1"] == ["a"]
    assert len(chart.findall("polygon")) == 1
    assert ET.tostring(chart)
    with pytest.raises(ValueError, match="at least one"):
        curves([], Axis("x"), Axis("y"), alt="said")


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_scale_holds_its_values_and_names_a_few(values: list[float]) -> None:
    on = scale(values, 0, 100)
    named = [value for value, _ in ticks(on)]

    assert all(0 <= on(value) <= 100 for value in values)
    assert 2 <= len(named) <= 7
    assert all(on.low <= value <= on.high for value in named)


@pytest.mark.parametrize(("low", "high"), [(1, 1000), (0.5, 3), (40, 90_000), (2, 2)])
def test_a_logarithmic_scale_names_round_values(low: float, high: float) -> None:
    named = ticks(scale([low, high], 0, 100, log=True))

    assert 1 <= len(named) <= 6
    assert all(label.strip("0.,")[:1] in "1235" for _, label in named)


def test_ticks_are_written_as_people_write_numbers() -> None:
    assert ticks(Scale(-0.003, 0.0061, 0, 1)) == [
        *((-0.002, "−0.002"), (0.0, "0.000"), (0.002, "0.002"), (0.004, "0.004"), (0.006, "0.006"))
    ]
    assert [plain(v) for v in (0.5, 12, 1000, 1234567, 0.012345)] == ["0.5", "12", "1,000", "1,234,567", "0.01235"]
    assert [percent(v) for v in (0.01, 0.055, 1, 0.1 + 0.2)] == ["1 %", "5.5 %", "100 %", "30 %"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=7))
def test_labels_keep_apart_in_the_order_of_their_curves(wanted: list[float]) -> None:
    found = apart(wanted, gap=14, low=0, high=100)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [found[i] for i in order]

    assert all(b - a >= 14 - 1e-9 for a, b in pairwise(placed))
    assert all(0 <= place <= 100 for place in placed)
    if all(b - a >= 14 for a, b in pairwise(sorted(wanted))):
        assert found == pytest.approx(wanted)  # nothing moves without need


def test_seeds_make_a_students_t_interval() -> None:
    table = pl.DataFrame({"arm": ["a", "a", "a", "b", "c", "c"], "value": [1.0, 2.0, 3.0, 5.0, 5.0, 7.0]})
    a, b, c = over_seeds(table, ["arm"]).to_dicts()

    assert (a["mean"], a["seeds"], b["mean"], b["low"]) == (2.0, 3, 5.0, None)
    assert (c["mean"], c["seeds"], c["low"], c["high"]) == (6.0, 2, None, None)
    assert a["high"] - 2 == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees of freedom, from a printed table
    assert 2 - a["low"] == pytest.approx(a["high"] - 2)


def test_an_arm_keeps_its_colour_and_every_colour_is_in_the_frame() -> None:
    found = styles([*ARMS, *"abcdefg"], base="base", controls=("permuted", "random"))
    frame = page.FRAME.read_text(encoding="utf-8")

    assert found["base"] == "base"
    assert [found[arm] for arm in ("item text", "title", "permuted", "random", "a")] == [
        "c1",
        "c2",
        "control1",
        "control2",
        "c3",
    ]
    assert found["e"] == "c1"  # colours begin again
    assert all(f".{style} {{ --c: var(--{style}); }}" in frame for style in found.values())
    assert len(FRACTIONS) > 1


def words(tables: dict[str, pl.DataFrame]) -> list[str]:
    return Outline(ctr.render(tables, META)).words
