"""What does the page of a study of CTR models show? How many labelled rows text saves, for which items, at what price.

Drawn from the tables of the studies of sample efficiency and ablation: results (protocol, model, arm, fraction,
train_rows, seed, slice, metric, value, rows), claims (claim, model, arm, against, fraction, slice, metric, base,
difference, low, high, rows, margin, verdict, controlled), calibration (model, arm, fraction, seed, bin, predicted,
observed, rows).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from flows.studies.page import FAILS, HOLDS, Claim, Claims, Fact, Page, Section, Step, Table, html
from flows.studies.page.colours import styles
from flows.studies.page.ctr_figures import figures
from flows.studies.page.ctr_tables import CONTROL, GAIN, SAVING, CtrTables
from flows.studies.page.scales import decimal, difference, percent, plain

BASE = "base"
HEADINGS = {
    SAVING: "Text with fewer rows equals all rows without",
    GAIN: "Text beats the base",
    CONTROL: "Vectors that say nothing add nothing",
}
"""Kinds of claims that come first, and how they are headed; others follow."""


def render(tables: Mapping[str, pl.DataFrame], meta: Mapping[str, Any]) -> str:
    """The page as HTML. tables: results, claims, calibration.

    meta: `title`, `lead` (a sentence) and `warnings` (sentences) head the page; all else says how it was made.
    """
    results, claims = tables["results"], tables["claims"]
    arms = results["arm"].unique(maintain_order=True).to_list()
    controls = set(claims.filter(claim=CONTROL)["arm"])
    drawn = CtrTables(results, claims, tables["calibration"], styles(arms, base=BASE, controls=controls))
    page = Page(
        title=meta["title"],
        lead=meta["lead"],
        # The claims say themselves which arms stand without controls.
        warnings=(*_uncontrolled(claims), *(w for w in meta.get("warnings", ()) if not w.startswith("uncontrolled"))),
        sections=(
            Section("Claims", text=_how_to_read(claims), facts=tuple(_savings(claims)), claims=tuple(_groups(claims))),
            Section("Figures", figures=tuple(figures(drawn))),
            Section("Everything", kept_closed=(("Results, mean over seeds", _results(results)), _all(claims))),
        ),
        made={name: value for name, value in meta.items() if name not in ("title", "lead", "warnings")},
    )
    return html(page)


def _uncontrolled(claims: pl.DataFrame) -> Iterator[str]:
    """A warning that names the arms whose text was never compared with vectors that say nothing."""
    bare = claims.filter(pl.col("claim").is_in([GAIN, SAVING]), ~pl.col("controlled"))["arm"]
    if len(bare):
        yield (
            f"Uncontrolled: {', '.join(bare.unique(maintain_order=True))} stands beside no permuted and random vectors,"
            " so a gain may come from more parameters and not from the text."
        )


def _how_to_read(claims: pl.DataFrame) -> str:
    margins = sorted(set(claims["margin"].drop_nulls()))
    margin = f" Equal means worse by less than {' or '.join(map(plain, margins))}, set beforehand." if margins else ""
    saving = (
        "; text with fewer rows equals all rows without down to the share shown, tested downwards until the first that"
        " does not hold"
    )
    return (
        "Differences with paired 95 % intervals. A line holds where it holds at every share of the training rows that"
        f" it names{saving if len(claims.filter(claim=SAVING)) else ''}.{margin}"
    )


def _savings(claims: pl.DataFrame) -> Iterator[Fact]:
    """For each model the smallest fraction at which some arm with text equals all rows without."""
    asked = claims.filter(pl.col("claim") == SAVING, pl.col("slice") == "all")
    for (model,), rows in asked.group_by("model", maintain_order=True):
        shown = [_smallest(arm.to_dicts()) for _, arm in rows.group_by("arm", maintain_order=True)]
        best = min(shown, key=lambda row: row["fraction"] if row["verdict"] == HOLDS else 1)
        if best["verdict"] != HOLDS or best["fraction"] == 1:
            yield Fact("—", f"{model}: no smaller share of the rows with text was shown to equal all rows without")
        else:
            said = f"{percent(best['fraction'])} of the rows with {best['arm']} equal all rows without"
            yield Fact(f"{1 / best['fraction']:.3g}×", f"fewer labelled rows for {model}: {said}")


def _smallest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The claim at the smallest fraction below 1 up to which every one holds, from all rows downwards; else the first
    that does not: in a fixed sequence each test keeps its level (Westfall and Krishen 2001, section 2)."""
    shown: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: -row["fraction"]):
        if row["verdict"] != HOLDS and shown.get("fraction", 1) < 1:
            return shown
        shown = row
        if row["verdict"] != HOLDS:
            return shown
    return shown


def _groups(claims: pl.DataFrame) -> Iterator[Claims]:
    """For each kind a line for each model, arm and metric; kept closed the same on cold and on warm items, and finer
    slices are figures."""
    kinds = list(dict.fromkeys([*HEADINGS, *claims["claim"].to_list()]))
    for kind in kinds:
        lines, finer = (
            tuple(
                _line(kind, rows.to_dicts())
                for rows in _lines(claims.filter(pl.col("slice").is_in(slices), claim=kind))
            )
            for slices in (["all"], ["cold_items", "warm_items"])
        )
        if lines or finer:
            yield Claims(HEADINGS.get(kind, kind.capitalize()), lines, finer)


def _lines(claims: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of each line, one fraction after the other."""
    by = ["model", "arm", "against", "slice", "metric"]
    return (rows for _, rows in claims.sort("fraction", maintain_order=True).group_by(by, maintain_order=True))


def _line(kind: str, rows: list[dict[str, Any]]) -> Claim:
    """rows: the claim at one fraction after the other."""
    of = rows[0]
    said = "" if of["controlled"] else "uncontrolled: "
    said += f"{of['model']}: {of['arm']} {'against' if kind == CONTROL else 'over'} {of['against']}"
    said += "" if of["metric"] == "auc" else f", {of['metric']}"
    said += "" if of["slice"] == "all" else f", on {of['slice'].replace('_', ' ')}"
    steps = tuple(Step(percent(row["fraction"]), row["verdict"], evidence(row)) for row in rows)
    verdicts = [row["verdict"] for row in rows]
    shown = _smallest(rows) if kind == SAVING else rows[-1]
    verdict = next((v for v in (FAILS, *verdicts) if v in verdicts and v != HOLDS), HOLDS)
    verdict = shown["verdict"] if kind == SAVING else verdict
    at = f" at {percent(shown['fraction'])}" if len(rows) > 1 else ""
    return Claim(verdict, said, difference(shown) + at, steps if len(steps) > 1 else ())


def evidence(row: Mapping[str, Any]) -> str:
    """The numbers of a claim: difference, interval, what it is over."""
    return difference(row) + ("" if row["base"] is None else f" over {row['base']:.4f}")


def _results(results: pl.DataFrame) -> Table:
    by = ["protocol", "model", "arm", "fraction", "slice"]
    metrics = results["metric"].unique(maintain_order=True).to_list()
    wide = results.group_by([*by, "metric"], maintain_order=True).agg(
        pl.col("value").mean(), pl.col("seed").n_unique(), pl.col("rows").max()
    )
    seeds = wide.group_by(by, maintain_order=True).agg(pl.col("seed").max(), pl.col("rows").max())
    table = wide.drop("seed", "rows").pivot("metric", index=by, values="value").join(seeds, on=by, how="left")
    cells = tuple(
        (
            *(row["protocol"], row["model"], row["arm"], row["slice"].replace("_", " "), percent(row["fraction"])),
            *(decimal(row[metric]) for metric in metrics),
            *(f"{row['rows']:,}", str(row["seed"])),
        )
        for row in table.to_dicts()
    )
    return Table(("protocol", "model", "arm", "slice", "fraction", *metrics, "test rows", "seeds"), cells, words=4)


def _all(claims: pl.DataFrame) -> tuple[str, Table]:
    columns = ("claim", "model", "arm", "against", "slice", "metric", "verdict", "fraction", "difference", "rows")
    cells = tuple(
        (
            *(row["claim"], row["model"], row["arm"], row["against"], row["slice"].replace("_", " "), row["metric"]),
            *(row["verdict"], percent(row["fraction"]), evidence(row), f"{row['rows']:,}"),
        )
        for row in claims.to_dicts()
    )
    return "Claims, each slice and fraction", Table(columns, cells, words=7)
