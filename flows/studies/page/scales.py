"""Where on a chart does a number lie, and which numbers stand beside its axes? Linear and logarithmic axes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

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
    """Places as near as may be to those `wanted` that are `gap` apart and, where they all fit, in [low, high].

    Less `gap` times its rank, each place must not be below the one before it: an isotonic regression (Barlow et al.
    1972, "Statistical Inference under Order Restrictions").
    """
    if not wanted:
        return []
    order = np.argsort(wanted, kind="stable")
    offsets = gap * np.arange(len(order))
    fitted = isotonic_regression(np.asarray(wanted, np.float64)[order] - offsets).x
    found = np.empty(len(order))
    found[order] = np.clip(fitted, low, max(low, high - offsets[-1])) + offsets
    return found.tolist()


def plain(value: float) -> str:
    """A number as a person writes it: 0.5, 12, 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1 and value == round(value) else f"{value:,.4g}"


def decimal(value: float | None) -> str:
    """A value of a metric: four decimals, two from 10 on; empty where there is none."""
    return "" if value is None else f"{value:.{4 if abs(value) < 10 else 2}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    """A difference with its sign, a true minus: +0.0072; empty where there is none."""
    return "" if value is None else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def difference(row: Mapping[str, Any]) -> str:
    """A claim's `difference` with its interval from `low` to `high`: +0.0072 [+0.0051, +0.0093]."""
    if row["difference"] is None:
        return "no number"
    interval = ", ".join(signed(row[end]) for end in ("low", "high")) if row["low"] is not None else "no interval"
    return f"{signed(row['difference'])} [{interval}]"


def percent(fraction: float) -> str:
    """A share as a person writes it: 5 %."""
    return f"{plain(round(100 * fraction, 6))} %"
