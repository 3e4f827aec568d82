"""What does the page of the study of sequential models show? What text adds, to which items, and what the lists hold.

Drawn from the tables of `flows/studies/sequential/tables.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from flows.studies.page import OPEN, Claim, Claims, Figure, Key, Page, Panel, Section, Step, Table, html
from flows.studies.page.charts import Row, dots
from flows.studies.page.colours import styles
from flows.studies.page.scales import decimal, difference
from flows.studies.page.seeds import over_seeds

BASE = "base"
UNTRAINED = "no arm"
"""How recommenders without arms are named."""


def render(tables: Mapping[str, pl.DataFrame], meta: Mapping[str, Any]) -> str:
    """The page as HTML. tables: results, claims.

    meta: `title`, `lead` (a sentence) and `warnings` (sentences) head the page; all else says how it was made.
    """
    results, claims = tables["results"], tables["claims"]
    results = results.with_columns(pl.col("arm").replace("", UNTRAINED), part=_words(pl.col("slice")))
    arms = results["arm"].unique(maintain_order=True).to_list()
    drawn = styles(sorted(arms, key=lambda arm: arm != BASE), base=BASE, controls=_controls(claims))
    metric = claims["metric"][0] if len(claims) else "ndcg@20"
    page = Page(
        title=meta["title"],
        lead=meta["lead"],
        warnings=(*_uncontrolled(claims), *meta.get("warnings", ())),
        sections=(
            Section(
                "Claims",
                text=f"Differences of {metric} with paired 95 % intervals over users and seeds. A line is judged on all"
                " queries; beside it the same claim on items by their training rows. That vectors which say nothing"
                " beat the base should not hold: where it does, a gain is not the text's.",
                claims=tuple(_groups(claims)),
            ),
            Section("All queries, ranked in full", tables=(_table(results, claims, metric),)),
            Section("Figures", figures=tuple(_figures(results, drawn, metric))),
            Section("Everything", kept_closed=(("Results, mean over seeds", _everything(results)),)),
        ),
        made={name: value for name, value in meta.items() if name not in ("title", "lead", "warnings")},
    )
    return html(page)


def _controls(claims: pl.DataFrame) -> set[str]:
    """Arms that something was claimed to beat, other than the base."""
    return set(claims["worse"]) - {BASE}


def _uncontrolled(claims: pl.DataFrame) -> Iterator[str]:
    """A warning for arms with text that were compared with the base and with no control."""
    controls = _controls(claims)
    told = [arm for arm in claims.filter(worse=BASE)["better"].unique(maintain_order=True) if arm not in controls]
    controlled = set(claims.filter(pl.col("worse") != BASE)["better"])
    if open_ones := [arm for arm in told if arm not in controlled]:
        yield (
            f"Uncontrolled: nobody compared {', '.join(open_ones)} with vectors that say nothing, so a gain may come"
            " from how the item table starts and not from the text."
        )


def _groups(claims: pl.DataFrame) -> Iterator[Claims]:
    """For each pair of arms a line for each model, with a step for each slice."""
    for (better, worse), pair in claims.group_by("better", "worse", maintain_order=True):
        lines = []
        for (model, metric), rows in pair.group_by("model", "metric", maintain_order=True):
            steps = tuple(Step(_word(r["slice"]), r["verdict"], _evidence(r)) for r in rows.to_dicts())
            whole = rows.filter(pl.col("slice") == "all").to_dicts()
            verdict, evidence = (whole[0]["verdict"], _evidence(whole[0])) if whole else (OPEN, "")
            lines.append(Claim(verdict, f"{model}, {metric}", evidence, steps))
        yield Claims(f"{better} beats {worse}", tuple(lines))


def _evidence(row: Mapping[str, Any]) -> str:
    over = "" if row["difference"] is None else f" over {row['base']:.4f}, {row['queries']:,} queries"
    return difference(row) + over


def _table(results: pl.DataFrame, claims: pl.DataFrame, metric: str) -> tuple[str, Table]:
    """The table of the paper: means over seeds, and the paired difference of an arm to the base."""
    others = [f"{name}@{metric.partition('@')[2]}" for name in ("ndcg", "hr", "coverage", "serendipity")]
    others = [name for name in others if name != metric]
    whole = results.filter(pl.col("metric").is_in([metric, *others]), slice="all")
    means = whole.group_by("model", "arm", "metric", maintain_order=True).agg(pl.col("value").mean())
    asked = claims.filter(slice="all", worse=BASE)
    paired = {(r["model"], r["better"]): difference(r) for r in asked.to_dicts() if r["difference"] is not None}
    cells = (
        (
            *(row["model"], row["arm"], decimal(row[metric]), paired.get((row["model"], row["arm"]), "")),
            *(decimal(row[name]) for name in others),
        )
        for row in means.pivot("metric", index=["model", "arm"], values="value").to_dicts()
    )
    columns = ("model", "arm", metric, "less the base's", *others)
    return "Means over seeds, and the paired difference to the base", Table(columns, tuple(cells), words=2)


def _figures(results: pl.DataFrame, drawn: Mapping[str, str], metric: str) -> Iterator[Figure]:
    k = metric.partition("@")[2]
    accuracy = [f"{name}@{k}" for name in ("ndcg", "hr", "mrr")]
    beyond = [f"{name}@{k}" for name in ("coverage", "serendipity", "novelty")]
    whole = results.filter(slice="all")
    over = "Means over seeds, with 95 % intervals where there are three or more."
    yield _figure("How good the rankings are", f"All queries. {over}", whole, drawn, "value", accuracy)
    parts = results.filter(metric=metric).with_columns(metric=pl.col("part"))
    names = parts["part"].unique(maintain_order=True).to_list()
    yield _figure(
        f"For which items: {metric}", f"By the training rows of the target. {over}", parts, drawn, metric, names
    )
    said = (
        "Coverage: share of the catalogue that is recommended to anybody. Serendipity: hits that popularity would not"
        " have made. Novelty: bits of surprise of what is recommended. Popularity is counted in training rows. "
    )
    yield _figure("What the lists hold beside the answer", said + over, whole, drawn, "value", beyond)


def _figure(
    title: str, caption: str, results: pl.DataFrame, drawn: Mapping[str, str], x_label: str, panels: Sequence[str]
) -> Figure:
    """A panel for each of `panels` (values of the column `metric`), a row a model, a dot an arm."""
    found = over_seeds(results.filter(pl.col("metric").is_in(panels)), ["metric", "model", "arm"])
    shown = []
    for name in panels:
        rows = found.filter(metric=name)
        if rows.is_empty():
            continue
        lines = [
            Row(
                str(model),
                tuple((r["arm"], drawn[r["arm"]], r["mean"], r["low"], r["high"]) for r in some.to_dicts()),
            )
            for (model,), some in rows.group_by("model", maintain_order=True)
        ]
        best = rows.sort("mean", descending=True).row(0, named=True)
        highest = f"{best['model']}, {best['arm']}, {decimal(best['mean'])}"
        alt = f"{name}: a row for each model, a dot for each arm. The highest is {highest}."
        shown.append(Panel(name, dots(lines, x_label, alt=alt, say=decimal)))
    cells = tuple(
        (r["metric"], r["model"], r["arm"], decimal(r["mean"]), decimal(r["low"]), decimal(r["high"]), str(r["seeds"]))
        for r in found.to_dicts()
    )
    here = set(found["arm"])
    legend = tuple(Key(style, arm) for arm, style in drawn.items() if arm in here)
    table = Table(("of", "model", "arm", "mean", "low", "high", "seeds"), cells, words=3)
    return Figure(title, caption, tuple(shown), table, legend)


def _everything(results: pl.DataFrame) -> Table:
    by = ["protocol", "model", "arm", "part"]
    metrics = results["metric"].unique(maintain_order=True).to_list()
    means = results.group_by([*by, "metric"], maintain_order=True).agg(pl.col("value").mean())
    sizes = results.group_by(by).agg(pl.col("queries").max(), pl.col("seed").n_unique())
    table = means.pivot("metric", index=by, values="value").join(sizes, on=by, how="left", maintain_order="left")
    cells = tuple(
        (
            *(row[name] for name in by),
            *(decimal(row[name]) for name in metrics),
            f"{row['queries']:,}",
            str(row["seed"]),
        )
        for row in table.to_dicts()
    )
    return Table(("protocol", "model", "arm", "slice", *metrics, "queries", "seeds"), cells, words=4)


def _words(column: pl.Expr) -> pl.Expr:
    return column.str.replace_all("_", " ")


def _word(name: str) -> str:
    return name.replace("_items", "").replace("_", " ")
