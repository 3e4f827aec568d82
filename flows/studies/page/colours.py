"""Which colour has which arm? One and the same in every figure of a page."""

from collections.abc import Collection, Mapping, Sequence

COLOURS, CONTROLS = 6, 3
"""How many of each `frame.html` has; arms beyond that begin again."""


def styles(arms: Sequence[str], *, base: str, controls: Collection[str]) -> Mapping[str, str]:
    """The colour class of each arm: the base in ink, controls in greys, all others in colours, in the order given."""
    found: dict[str, str] = {}
    for arm in dict.fromkeys(arms):
        if arm == base:
            found[arm] = "base"
        elif arm in controls:
            place = sum(style.startswith("control") for style in found.values())
            found[arm] = f"control{place % CONTROLS + 1}"
        else:
            place = sum(style.startswith("c") and not style.startswith("control") for style in found.values())
            found[arm] = f"c{place % COLOURS + 1}"
    return found
