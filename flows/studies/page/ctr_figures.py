"""Which figures tell what text does for CTR models? Curves over training rows, gains by slice, calibration."""

from collections.abc import Callable, Iterator

import polars as pl

from flows.studies.page import Figure, Panel, Table
from flows.studies.page.charts import Axis, Level, Row, curves, dots
from flows.studies.page.ctr_tables import METRIC, SAVING, TO_BASE, CtrTables, claim_table
from flows.studies.page.scales import decimal, percent, plain, signed
from flows.studies.page.seeds import over_seeds

SLICES = {"item_rows:": "training rows of the item", "history:": "length of the user's history"}
"""Slices with these beginnings are bins, in order; and of what."""


def figures(tables: CtrTables) -> Iterator[Figure]:
    """Every figure that the tables have numbers for."""
    if tables.results["fraction"].n_unique() > 1:
        yield _learning_curves(tables)
        yield from _differences(
            tables,
            tables.claims.filter(pl.col("claim").is_in(TO_BASE)),
            title="What each arm adds to the base",
            caption="Test AUC less that of the base at the same rows and seeds; bands are paired 95 % intervals over"
            " users and seeds.",
            levels=lambda _: (Level(0.0, "base"),),
        )
        yield from _differences(
            tables,
            tables.claims.filter(claim=SAVING),
            title="How few rows with text equal all rows without",
            caption="Test AUC at a fraction of the rows less that of the base with all rows. Where a band lies above"
            " the dashed margin, that fraction is not inferior.",
            levels=_margin,
        )
    else:
        yield _arms(tables)
        yield from _gains(tables)
    for start, of in SLICES.items():
        yield from _by_bin(tables, start, of)
    if not tables.calibration.is_empty():
        yield _calibration(tables)


def _learning_curves(tables: CtrTables) -> Figure:
    """Test AUC over training rows: a panel a model, a curve an arm, bands over seeds."""
    chosen = tables.results.filter(slice="all", metric=METRIC)
    by = ["model", "arm", "fraction"]
    sizes = chosen.group_by(by).agg(pl.col("train_rows").mean())
    found = over_seeds(chosen, by).join(sizes, on=by, how="left", maintain_order="left")
    found = found.sort("fraction", maintain_order=True)
    panels = []
    for (model,), rows in found.group_by("model", maintain_order=True):
        at = tuple((row["train_rows"], percent(row["fraction"])) for row in rows.unique("fraction").to_dicts())
        most = float(rows["train_rows"].max())  # type: ignore[arg-type]
        chart = curves(
            tables.series(rows, x="train_rows", y="mean"),
            Axis(f"training rows, log scale (100 % = {plain(round(most / tables.whole))})", log=True, at=at),
            Axis("test AUC"),
            alt=f"{model}: test AUC over training rows, a curve for each arm. {_ends(rows)}",
            say=decimal,
        )
        panels.append(Panel(str(model), chart))
    return Figure(
        "Sample efficiency",
        "Test AUC over the training rows, which are nested and the same for every arm. Bands are 95 % intervals over"
        " seeds, of three or more.",
        tuple(panels),
        Table(
            ("model", "arm", "fraction", "training rows", "AUC", "low", "high", "seeds"),
            tuple(
                (
                    *(row["model"], row["arm"], percent(row["fraction"]), plain(round(row["train_rows"]))),
                    *(decimal(row["mean"]), decimal(row["low"]), decimal(row["high"]), str(row["seeds"])),
                )
                for row in found.sort("model", "arm", "fraction", maintain_order=True).to_dicts()
            ),
            words=2,
        ),
    )


def _differences(
    tables: CtrTables,
    claims: pl.DataFrame,
    *,
    title: str,
    caption: str,
    levels: Callable[[pl.DataFrame], tuple[Level, ...]],
) -> Iterator[Figure]:
    """A difference over fractions with its interval: a panel a model, a curve an arm."""
    chosen = claims.filter(pl.col("slice") == "all", pl.col("metric") == METRIC, pl.col("difference").is_not_null())
    chosen = chosen.sort("fraction", maintain_order=True)
    panels = []
    for (model,), rows in chosen.group_by("model", maintain_order=True):
        at = tuple((fraction, percent(fraction)) for fraction in rows["fraction"].unique())
        chart = curves(
            tables.series(rows, x="fraction", y="difference"),
            Axis("share of the training rows, log scale", log=True, at=at),
            Axis("difference in AUC"),
            alt=f"{model}: {title}. {_claimed_ends(rows)}",
            levels=levels(rows),
            say=signed,
        )
        panels.append(Panel(str(model), chart))
    if panels:
        yield Figure(title, caption, tuple(panels), claim_table(chosen))


def _margin(rows: pl.DataFrame) -> tuple[Level, ...]:
    margin = rows["margin"].drop_nulls().max()
    return (Level(0.0, ""), Level(-float(margin), f"margin {plain(float(margin))}")) if margin else (Level(0.0, ""),)  # type: ignore[arg-type]


def _arms(tables: CtrTables) -> Figure:
    """Test AUC of every arm at the one fraction there is: a panel a model."""
    found = over_seeds(tables.results.filter(slice="all", metric=METRIC), ["model", "arm"])
    panels = []
    for (model,), rows in found.group_by("model", maintain_order=True):
        drawn = [
            Row(row["arm"], ((row["arm"], tables.styles[row["arm"]], row["mean"], row["low"], row["high"]),))
            for row in rows.to_dicts()
        ]
        panels.append(Panel(str(model), dots(drawn, "test AUC", alt=f"{model}: {_ends(rows)}", say=decimal)))
    cells = tuple(
        (row["model"], row["arm"], decimal(row["mean"]), decimal(row["low"]), decimal(row["high"]), str(row["seeds"]))
        for row in found.to_dicts()
    )
    return Figure(
        "Every arm",
        f"Test AUC at {percent(tables.whole)} of the training rows, with 95 % intervals over seeds, of three or more.",
        tuple(panels),
        Table(("model", "arm", "AUC", "low", "high", "seeds"), cells, words=2),
    )


def _gains(tables: CtrTables) -> Iterator[Figure]:
    """What every arm adds to the base at the one fraction there is: a panel a model, a row an arm."""
    found = tables.claims.filter(
        pl.col("claim").is_in(TO_BASE), pl.col("slice") == "all", pl.col("difference").is_not_null()
    )
    panels = []
    for (model,), rows in found.group_by("model", maintain_order=True):
        drawn = [
            Row(row["arm"], ((row["arm"], tables.styles[row["arm"]], row["difference"], row["low"], row["high"]),))
            for row in rows.to_dicts()
        ]
        said = f"{model}: difference in AUC to the base, a row for each arm. {_claimed_ends(rows)}"
        panels.append(Panel(str(model), dots(drawn, "difference in AUC", alt=said, say=signed, zero=True)))
    if panels:
        caption = "Test AUC less that of the base on the same rows and seeds, with paired 95 % intervals."
        yield Figure("What each arm adds to the base", caption, tuple(panels), claim_table(found))


def _by_bin(tables: CtrTables, start: str, of: str) -> Iterator[Figure]:
    """The gain of each arm over the base, by bins of one number: a panel a model."""
    found = tables.claims.filter(
        pl.col("slice").str.starts_with(start),
        pl.col("claim").is_in(TO_BASE),
        pl.col("metric") == METRIC,
        pl.col("fraction") == tables.whole,
        pl.col("difference").is_not_null(),
    ).with_columns(bin=pl.col("slice").str.strip_prefix(start))
    panels = []
    for (model,), rows in found.group_by("model", maintain_order=True):
        drawn = [
            Row(
                str(name),
                tuple(
                    (row["arm"], tables.styles[row["arm"]], row["difference"], row["low"], row["high"])
                    for row in some.to_dicts()
                ),
            )
            for (name,), some in rows.group_by("bin", maintain_order=True)
        ]
        said = f"{model}: difference in AUC to the base, by {of}. {_claimed_ends(rows, 'bin')}"
        panels.append(Panel(str(model), dots(drawn, "difference in AUC", alt=said, say=signed, zero=True)))
    if panels:
        yield Figure(
            f"Gain by {of}",
            f"Test AUC less that of the base at {percent(tables.whole)} of the rows, in bins of the {of}; paired 95 %"
            " intervals.",
            tuple(panels),
            claim_table(found),
            legend=tables.legend(found["arm"].to_list()),
        )


def _calibration(tables: CtrTables) -> Figure:
    """Share of likes over the predicted probability: a panel a model, a curve an arm."""
    chosen = tables.calibration.filter(fraction=tables.calibration["fraction"].max())
    weights = pl.col("rows") / pl.col("rows").sum()
    found = chosen.group_by("model", "arm", "bin", maintain_order=True).agg(
        (pl.col("predicted") * weights).sum(), (pl.col("observed") * weights).sum(), pl.col("rows").sum()
    )
    found = found.sort("bin", maintain_order=True)
    panels = []
    for (model,), rows in found.group_by("model", maintain_order=True):
        chart = curves(
            tables.series(rows, x="predicted", y="observed"),
            Axis("predicted probability"),
            Axis("observed share of likes"),
            alt=f"{model}: observed share of likes over the predicted probability, a curve for each arm beside the"
            " diagonal of perfect calibration.",
            diagonal=True,
            say=decimal,
        )
        panels.append(Panel(str(model), chart))
    cells = tuple(
        (
            row["model"],
            row["arm"],
            str(row["bin"]),
            decimal(row["predicted"]),
            decimal(row["observed"]),
            plain(row["rows"]),
        )
        for row in found.sort("model", "arm", "bin", maintain_order=True).to_dicts()
    )
    return Figure(
        "Calibration",
        "Observed share of likes in bins of equal size over what was predicted; the dashed diagonal is perfect.",
        tuple(panels),
        Table(("model", "arm", "bin", "predicted", "observed", "rows"), cells, words=2),
    )


def _ends(rows: pl.DataFrame) -> str:
    """The last value of every arm, in words."""
    last = rows.unique("arm", keep="last", maintain_order=True)
    return "At the end: " + "; ".join(f"{row['arm']} {decimal(row['mean'])}" for row in last.to_dicts()) + "."


def _claimed_ends(rows: pl.DataFrame, by: str = "fraction") -> str:
    """The last difference of every arm, in words."""
    last = rows.unique("arm", keep="last", maintain_order=True).to_dicts()
    return f"At {by} {last[0][by]}: " + "; ".join(f"{row['arm']} {signed(row['difference'])}" for row in last) + "."
