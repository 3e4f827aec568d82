"""What does the page of request times show? Milliseconds over the number of candidates, and what was paid once.

Drawn from the tables of `flows/studies/latency`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from flows.studies.page import Fact, Figure, Page, Panel, Section, Table, html
from flows.studies.page.charts import Axis, Point, Series, curves
from flows.studies.page.scales import plain

NAMES = {"without": "no text", "with": "stored vectors", "llm": "LLM asked"}
STYLES = {"without": "base", "with": "c1", "llm": "c2"}
AT = 100
"""Candidates of the numbers in large letters, or the nearest there are."""


def render(tables: Mapping[str, pl.DataFrame], meta: Mapping[str, Any]) -> str:
    """The page as HTML. tables: results, costs. meta: `title` and `lead` head it; all else says how it was made."""
    results, costs = tables["results"], tables["costs"]
    page = Page(
        title=meta["title"],
        lead=meta["lead"],
        sections=(
            Section("In short", facts=tuple(_facts(results))),
            Section("Figures", figures=tuple(_figures(results))),
            Section(
                "What was paid once",
                text="Text is written and encoded at night; a request only looks vectors up. Seconds are those of all"
                " recorded nights, bytes those of the newest version on the disk: texts, keys and vectors.",
                tables=(("Each feature set", _costs(costs)),),
            ),
            Section("Every number", tables=(("Request times", _results(results)),)),
        ),
        made={name: value for name, value in meta.items() if name not in ("title", "lead")},
    )
    return html(page)


def _facts(results: pl.DataFrame) -> Iterator[Fact]:
    """What stored text costs a request, and what asking an LLM would, in times."""
    warm = results.filter(pl.col("cache") == "warm", pl.col("p50_ms").is_not_null())
    for (model,), rows in warm.filter(pl.col("arm") != "llm").group_by("model", maintain_order=True):
        pair = _at(rows, AT)
        if {"without", "with"} <= set(pair):
            base, text = pair["without"], pair["with"]
            said = f"{model} with stored vectors: {_ms(text['p50_ms'])} over {_ms(base['p50_ms'])} without text"
            yield Fact(f"{text['p50_ms'] / base['p50_ms']:.3g}×", f"{said}, p50, {_candidates(text)}, warm")
        asked = warm.filter(arm="llm")
        if len(asked) and len(served := rows.filter(arm="with")):
            llm = asked.sort("candidates").row(-1, named=True)
            text = _at(served, llm["candidates"])["with"]
            said = f"asking {llm['model']} directly: {_ms(llm['p50_ms'])} over {_ms(text['p50_ms'])} of {model}"
            yield Fact(f"{llm['p50_ms'] / text['p50_ms']:,.3g}×", f"{said}, p50, {_candidates(llm)}, warm")


def _at(rows: pl.DataFrame, candidates: int) -> dict[str, dict[str, Any]]:
    """For each arm the row nearest to a number of candidates."""
    near = rows.sort((pl.col("candidates") - candidates).abs(), "candidates", maintain_order=True)
    return {row["arm"]: row for row in near.unique("arm", keep="first", maintain_order=True).to_dicts()}


def _figures(results: pl.DataFrame) -> Iterator[Figure]:
    """A figure for each state of the caches: a panel a model, a curve an arm, the LLM in every panel."""
    known = results.filter(pl.col("p50_ms").is_not_null())
    captions = {
        "warm": "In a process that has answered before. The line is p50, the shade reaches up to p99; both scales are"
        " logarithmic.",
        "cold": "From the start of a fresh process, with everything it loads, to its first answer. The line is p50,"
        " the shade reaches up to p99, of few starts.",
    }
    for cache, caption in captions.items():
        chosen = known.filter(cache=cache)
        models = chosen.filter(pl.col("arm") != "llm")["model"].unique(maintain_order=True)
        panels = tuple(Panel(model, _chart(model, chosen, cache)) for model in models)
        if panels:
            yield Figure(f"{cache.capitalize()} requests", caption, panels, _results(chosen))


def _chart(model: str, rows: pl.DataFrame, cache: str) -> Any:
    series = []
    for arm, name in NAMES.items():
        of = pl.col("arm") == arm
        mine = rows.filter(of if arm == "llm" else of & (pl.col("model") == model)).sort("candidates")
        points = tuple(Point(r["candidates"], r["p50_ms"], r["p50_ms"], r["p99_ms"]) for r in mine.to_dicts())
        series.append(Series(name, STYLES[arm], points))
    ends = "; ".join(f"{s.name} {_ms(s.points[-1].y)} at {plain(s.points[-1].x)}" for s in series if s.points)
    at = tuple((float(n), plain(n)) for n in sorted(set(rows["candidates"])))
    return curves(
        series,
        Axis("candidates in a request, log scale", log=True, at=at),
        Axis("milliseconds, log scale", log=True),
        alt=f"{model}, {cache}: milliseconds of a request over its candidates, at the median: {ends}.",
        say=_ms,
    )


def _results(results: pl.DataFrame) -> Table:
    cells = tuple(
        (
            *(row["model"] or "—", NAMES[row["arm"]], row["cache"], plain(row["candidates"])),
            *(f"{row['requests']:,}", _ms(row["p50_ms"]), _ms(row["p99_ms"]), row["not_measured"] or ""),
        )
        for row in results.to_dicts()
    )
    return Table(("model", "arm", "caches", "candidates", "requests", "p50", "p99", "not measured"), cells, words=3)


def _costs(costs: pl.DataFrame) -> Table:
    cells = tuple(
        (
            *(row["feature_set"], f"{row['entities']:,} {row['entity']}s", f"{row['texts']:,}"),
            *(f"{row['prompt_tokens']:,}", f"{row['output_tokens']:,}"),
            *(_seconds(row["generate_seconds"]), _seconds(row["encode_seconds"]), _bytes(row["bytes"])),
            *(f"{row['tokens_per_entity']:,.0f}", _seconds(row["seconds_per_entity"]), _bytes(row["bytes_per_entity"])),
            _bytes(row["vector_bytes"]),
        )
        for row in costs.to_dicts()
    )
    columns = (
        *("feature set", "of", "texts", "prompt tokens", "output tokens", "writing", "encoding", "on disk"),
        *("tokens each", "time each", "disk each", "vector"),
    )
    return Table(columns, cells, words=2)


def _candidates(row: Mapping[str, Any]) -> str:
    return f"{row['candidates']:,} candidate{'s' if row['candidates'] != 1 else ''}"


def _ms(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.3g} ms" if value < 1000 else _seconds(value / 1000)


def _seconds(value: float | None) -> str:
    if value is None:
        return "not recorded"
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:,.1f} s"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
