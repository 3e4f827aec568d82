"""How does a study reach its readers? One self-contained HTML page: claims first, then figures with their numbers.

The page asks for nothing from anywhere: its Content-Security-Policy forbids it, and lets no script run but its own.
Whatever comes from data is escaped. The files beside this one say what the page of each study shows.
"""

import base64
import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FRAME = Path(__file__).with_name("frame.html")
THEME = Path(__file__).with_name("theme.js")


@dataclass(frozen=True)
class Step:
    """The verdict of a claim at one place (a fraction, a slice), and the numbers it rests on."""

    label: str
    verdict: str
    evidence: str = ""


@dataclass(frozen=True)
class Claim:
    """One line: does it hold, what is said, on what evidence; and the verdict at each place it was asked of."""

    verdict: str
    said: str
    evidence: str = ""
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Claims:
    """Lines under a heading. kept_closed: the same claims of some rows only, which only the curious open."""

    title: str
    lines: tuple[Claim, ...]
    kept_closed: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. words: how many of the first columns are words; the others are numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True)
class Panel:
    """One chart of a figure, and what it is of."""

    title: str
    chart: ET.Element


@dataclass(frozen=True)
class Key:
    """A colour class and what it stands for, where the charts cannot say so themselves."""

    style: str
    name: str


@dataclass(frozen=True)
class Figure:
    """Small multiples under one caption, with the table they were drawn from."""

    title: str
    caption: str
    panels: tuple[Panel, ...]
    table: Table
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A number worth large letters, and what it says."""

    number: str
    said: str


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it, in the order of the fields.

    tables: with their titles; kept_closed: tables only the curious open.
    """

    title: str
    text: str = ""
    facts: tuple[Fact, ...] = ()
    claims: tuple[Claims, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    kept_closed: tuple[tuple[str, Table], ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page. warnings: what must be read before anything is believed. made: how it was made, name -> value."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)


HOLDS, FAILS, OPEN = "holds", "does not hold", "not enough evidence"
TALLY = {HOLDS: "hold", FAILS: "do not hold", OPEN: "without enough evidence"}


def html(page: Page) -> str:
    """The page as one HTML file; the same page gives the same text."""
    script = THEME.read_text(encoding="utf-8").strip()
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    lines = [
        line for section in page.sections for group in section.claims for line in (*group.lines, *group.kept_closed)
    ]
    verdicts = [line.verdict if line.verdict in (HOLDS, FAILS) else OPEN for line in lines]
    counted = {kind: f"{verdicts.count(kind)} {TALLY[kind]}" for kind in TALLY if kind in verdicts}
    return _frame().render(page=page, counted=counted, script=script, allowed=allowed)


@cache
def _frame() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = lambda chart: ET.tostring(chart, encoding="unicode")
    environment.filters["written"] = lambda said: said if isinstance(said, str) else json.dumps(said, default=str)
    environment.filters["kind"] = lambda verdict: {HOLDS: "holds", FAILS: "fails"}.get(verdict, "open")
    environment.filters["sign"] = lambda verdict: {HOLDS: "✓", FAILS: "✗"}.get(verdict, "?")
    return environment.from_string(FRAME.read_text(encoding="utf-8"))
