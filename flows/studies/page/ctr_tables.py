"""What do the figures of a study of CTR models share? Its tables, the colours of its arms, the cells of its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from flows.studies.page import Key, Table
from flows.studies.page.charts import Point, Series
from flows.studies.page.scales import percent, plain, signed

METRIC = "auc"
GAIN, CONTROL, SAVING = "text beats base", "control does nothing", "text at x % equals all rows without"
"""Kinds of claims."""
TO_BASE = [GAIN, CONTROL]
"""Those whose difference is to the base at the same fraction."""


@dataclass(frozen=True)
class CtrTables:
    """The tables of a study, and the colour class of each arm in the order of the study."""

    results: pl.DataFrame
    claims: pl.DataFrame
    calibration: pl.DataFrame
    styles: Mapping[str, str]

    @property
    def whole(self) -> float:
        """The largest fraction there is."""
        return float(self.results["fraction"].max())  # type: ignore[arg-type]

    def legend(self, arms: Sequence[str]) -> tuple[Key, ...]:
        """The colours of those of the arms that are here."""
        return tuple(Key(style, arm) for arm, style in self.styles.items() if arm in set(arms))

    def series(self, rows: pl.DataFrame, *, x: str, y: str) -> list[Series]:
        """A series an arm from columns `x` and `y`, with `low` and `high` where there are such columns."""
        found = []
        for arm, style in self.styles.items():
            mine = rows.filter(arm=arm).to_dicts()
            points = tuple(Point(row[x], row[y], row.get("low"), row.get("high")) for row in mine)
            found.append(Series(arm, style, points))
        return found


def claim_table(claims: pl.DataFrame) -> Table:
    """Claims as the table behind a figure."""
    cells = tuple(
        (
            *(row["model"], row["arm"], row["slice"].replace("_", " "), percent(row["fraction"])),
            *(signed(row["difference"]), signed(row["low"]), signed(row["high"]), plain(row["rows"])),
        )
        for row in claims.to_dicts()
    )
    return Table(("model", "arm", "slice", "fraction", "difference", "low", "high", "rows"), cells, words=3)
