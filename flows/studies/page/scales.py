"""Where on a chart does a number lie, and which numbers stand beside its axes? Linear and logarithmic axes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Tick = tuple[float, str]
"""A value and how it is written."""


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def scale(values: Iterable[float], start: float, end: float, *, log: bool = False, padding: float = 0.06) -> Scale:
    """A scale that holds all `values`, with a share of room at both ends. Raises ValueError where there are none."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not known:
        raise ValueError("a scale needs at least one finite value, above 0 where it is logarithmic")
    low, high = (math.log10(v) if log else v for v in (min(known), max(known)))
    room = (high - low) * padding or (0.15 if log else abs(high) * 0.05 or 1.0)
    low, high = low - room, high + room
    return Scale(10**low, 10**high, start, end, log=True) if log else Scale(low, high, start, end)


def ticks(on: Scale, *, most: int = 5) -> list[Tick]:
    """Round values within a scale, `most` or a few more, as they are written beside it."""
    if on.log:
        decades = range(math.floor(math.log10(on.low)), math.ceil(math.log10(on.high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**d for d in decades for f in factors if on.low <= f * 10.0**d <= on.high]
            if len(found) <= most + 1:
                break
        return [(value, plain(value)) for value in found]
    size = 10.0 ** math.floor(math.log10((on.high - on.low) / most))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if (on.high - on.low) / (factor * size) < most + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (step / size == 2.5))
    places = range(math.ceil(on.low / step - 1e-9), math.floor(on.high / step + 1e-9) + 1)
    named = [(place * step, f"{place * step + 0.0:,.{decimals}f}") for place in places]
    # rounding may put the outermost a hair outside
    return [(min(max(value, on.low), on.high), text.replace("-", "\N{MINUS SIGN}")) for value, text in named]


def apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places as near as may be to those `wanted` that are at least `gap` apart and, where they fit, in [low, high]."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for _ in range(60):
        for i in range(1, len(placed)):
            short = gap - (placed[i] - placed[i - 1])
            if short > 0:
                placed[i - 1] -= short / 2
                placed[i] += short / 2
        if placed and placed[0] < low:
            placed = [max(place, low + gap * i) for i, place in enumerate(placed)]
        if placed and placed[-1] > high:
            last = len(placed) - 1
            placed = [min(place, high - gap * (last - i)) for i, place in enumerate(placed)]
    found = [0.0] * len(wanted)
    for place, i in zip(placed, order, strict=True):
        found[i] = place
    return found


def plain(value: float) -> str:
    """A number as a person writes it: 0.5, 12, 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1 and value == round(value) else f"{value:,.4g}"


def signed(value: float, decimals: int = 4) -> str:
    """A difference with its sign, a true minus: +0.0072."""
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def percent(fraction: float) -> str:
    """A share as a person writes it: 5 %."""
    return f"{plain(round(100 * fraction, 6))} %"
