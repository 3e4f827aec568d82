"""How does a chart become SVG that follows the page's colours? Curves with bands, and dots with intervals.

Every chart is `WIDTH` wide, so that its letters stay readable on a phone, and small multiples stand side by side on a
wide screen. Colours are classes (see `frame.html`); what a reader hovers over names itself; the text alternative is in
`aria-label`. Elements are built as a tree, so that no name can become markup.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.studies.page.scales import Scale, Tick, apart, plain, scale, ticks

WIDTH, HEIGHT = 360, 252
LETTER = 6.7
"""Pixels of an average letter of a label."""
DIGIT = 7.2
"""Pixels of a digit of an axis."""
LONGEST = 18
"""Letters of a label beside a chart; the rest is in what a reader hovers over, and in the table."""
LINE = 14
"""Pixels between two labels."""


@dataclass(frozen=True)
class Point:
    """A value, with the ends of its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points in the order of x, under one name. style: a colour class of the page, as "base", "c1", "control1"."""

    name: str
    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axis:
    """What an axis shows. at: the values to name, by default round ones."""

    label: str
    log: bool = False
    at: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    y: float
    label: str


@dataclass(frozen=True)
class Row:
    """A line of a chart of dots: what it is about, and (series name, style, value, low, high) of each dot."""

    label: str
    dots: tuple[tuple[str, str, float, float | None, float | None], ...]


def curves(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    alt: str,
    levels: Sequence[Level] = (),
    diagonal: bool = False,
    say: Callable[[float], str] = plain,
) -> ET.Element:
    """A curve for each series with its interval as a band, named at its end. alt: the chart in a sentence.

    diagonal: draw y = x. say: how a y value is written. Raises ValueError where no series has a point.
    """
    series = [one for one in series if one.points]
    points = [point for one in series for point in one.points]
    right = WIDTH - 12 - LETTER * max((len(_short(one.name)) for one in series), default=0)
    heights = [v for p in points for v in (p.y, p.low, p.high) if v is not None] + [level.y for level in levels]
    widths = [p.x for p in points]
    if diagonal:
        heights, widths = [*heights, 0.0], [*widths, 0.0]
    top, bottom, left = 26.0, HEIGHT - 40.0, 46.0
    on_x = scale(widths, left, right, log=x.log, padding=0.03)
    on_y = scale(heights, bottom, top, log=y.log)
    svg = _svg(HEIGHT, alt)
    _grid(svg, on_y, y, left, right)
    _ticks_below(svg, on_x, x, bottom, left, right)
    for level in levels:
        _line(svg, "level", left, on_y(level.y), right, on_y(level.y))
        _text(svg, level.label, left + 3, on_y(level.y) - 4, "note")
    if diagonal:
        end = min(max(widths), max(heights))
        _line(svg, "level", on_x(0), on_y(0), on_x(end), on_y(end))
    for one in series:
        banded = [p for p in one.points if p.low is not None and p.high is not None]
        if len(banded) > 1:
            edge = [(on_x(p.x), on_y(p.high or 0.0)) for p in banded]
            edge += [(on_x(p.x), on_y(p.low or 0.0)) for p in reversed(banded)]
            _add(svg, "polygon", {"class": f"band {one.style}", "points": _path(edge)})
    for one in series:
        path = [(on_x(p.x), on_y(p.y)) for p in one.points]
        _add(svg, "polyline", {"class": f"curve {one.style}", "points": _path(path)})
        for p, (px, py) in zip(one.points, path, strict=True):
            dot = _add(svg, "circle", {"class": f"dot {one.style}", "cx": _n(px), "cy": _n(py), "r": "2.6"})
            _add(dot, "title", {}, f"{one.name}: {say(p.y)}{_between(p.low, p.high, say)} at {plain(p.x)}")
    _names(svg, series, on_x, on_y, right)
    return svg


def dots(
    rows: Sequence[Row], x_label: str, *, alt: str, say: Callable[[float], str] = plain, zero: bool = False
) -> ET.Element:
    """A dot with its interval for each value, in rows. zero: a line at 0, to tell gains from losses.

    Raises ValueError where no row has a dot.
    """
    left = 14 + LETTER * min(LONGEST, max((len(_short(row.label)) for row in rows), default=0))
    values = [v for row in rows for _, _, *of in row.dots for v in of if v is not None]
    alone = all(len(row.dots) <= 1 for row in rows)
    right = WIDTH - (58.0 if alone else 10.0)
    on_x = scale([*values, *([0.0] if zero else [])], left, right)
    heights = [max(24.0, 11.0 * len(row.dots) + 10) for row in rows]
    top, bottom = 8.0, 8.0 + sum(heights)
    svg = _svg(bottom + 38, alt)
    for value, label in ticks(on_x, most=4):
        _line(svg, "grid", on_x(value), top, on_x(value), bottom)
        _text(svg, label, on_x(value), bottom + 14, "tick", anchor="middle")
    _text(svg, x_label, (left + right) / 2, bottom + 31, "axis", anchor="middle")
    if zero:
        _line(svg, "level", on_x(0), top, on_x(0), bottom)
    y = top
    for row, height in zip(rows, heights, strict=True):
        label = _text(svg, _short(row.label), left - 8, y + height / 2 + 4, "row", anchor="end")
        _add(label, "title", {}, row.label)
        for place, (name, style, value, low, high) in enumerate(row.dots):
            at = y + height / 2 + 11 * (place - (len(row.dots) - 1) / 2)
            if low is not None and high is not None:
                _line(svg, f"interval {style}", on_x(low), at, on_x(high), at)
            dot = _add(svg, "circle", {"class": f"dot {style}", "cx": _n(on_x(value)), "cy": _n(at), "r": "3.6"})
            _add(dot, "title", {}, f"{row.label}, {name}: {say(value)}{_between(low, high, say)}")
            if alone:
                _text(svg, say(value), WIDTH - 2, at + 4, "value", anchor="end")
        y += height
    return svg


def _grid(svg: ET.Element, on_y: Scale, y: Axis, left: float, right: float) -> None:
    for value, label in y.at or ticks(on_y):
        _line(svg, "grid", left, on_y(value), right, on_y(value))
        _text(svg, label, left - 6, on_y(value) + 4, "tick", anchor="end")
    _text(svg, y.label, 0, 10, "axis")


def _ticks_below(svg: ET.Element, on_x: Scale, x: Axis, bottom: float, left: float, right: float) -> None:
    taken = math.inf
    for value, label in sorted(x.at or ticks(on_x), reverse=True):
        half = DIGIT * len(label) / 2
        _line(svg, "notch", on_x(value), bottom, on_x(value), bottom + 4)
        if on_x(value) + half + 6 < taken:
            _text(svg, label, on_x(value), bottom + 16, "tick", anchor="middle")
            taken = on_x(value) - half
    _line(svg, "frame", left, bottom, right, bottom)
    _text(svg, x.label, (left + right) / 2, bottom + 33, "axis", anchor="middle")


def _names(svg: ET.Element, series: Sequence[Series], on_x: Scale, on_y: Scale, right: float) -> None:
    """The name of each series at the end of its curve, moved where two would touch."""
    ends = [(on_x(one.points[-1].x), on_y(one.points[-1].y)) for one in series]
    places = apart([y for _, y in ends], gap=LINE, low=on_y.end + 4, high=on_y.start - 2)
    for one, (x, y), place in zip(series, ends, places, strict=True):
        if abs(place - y) > 3 or right - x > 8:
            _line(svg, f"leader {one.style}", x + 4, y, right + 7, place)
        name = _text(svg, _short(one.name), right + 9, place + 4, f"name {one.style}")
        _add(name, "title", {}, one.name)


def _svg(height: float, alt: str) -> ET.Element:
    return ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {_n(height)}", "role": "img", "aria-label": alt})


def _add(parent: ET.Element, tag: str, attributes: dict[str, str], text: str = "") -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    child.text = text or None
    return child


def _line(svg: ET.Element, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
    _add(svg, "line", {"class": style, "x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)})


def _text(svg: ET.Element, text: str, x: float, y: float, style: str, *, anchor: str = "start") -> ET.Element:
    return _add(svg, "text", {"class": style, "x": _n(x), "y": _n(y), "text-anchor": anchor}, text)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1].rstrip()}…"


def _between(low: float | None, high: float | None, say: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f" [{say(low)}, {say(high)}]"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
