"""What did the night do, at a glance? The tables a person reads at the end, and the same facts as Markdown."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

QUERIES = (
    "SELECT item_id, title, similarity FROM nearest_items((SELECT min(item_id) FROM item_knowledge), 5)",
    "SELECT user_id, as_of, n_history, text FROM user_preference ORDER BY n_history DESC LIMIT 3",
    "SELECT user_id, rank, title, round(score, 3) AS score FROM recommendations JOIN items USING (item_id)"
    " ORDER BY user_id, rank LIMIT 10",
)
"""Three questions to try."""

COLUMNS = ("model", "test rows", "AUC without", "with", "gain", "permuted gain", "LogLoss without", "with", "change")
PARTS = ("train", "validation", "test")

Row = tuple[str, str]


def show_night(summary: Mapping[str, Any], config: str) -> None:
    """Print a night's summary: data, texts, models, recommendations, queries to try, where everything lies."""
    for row in _overview(summary):
        _line(*row)
    if summary.get("models"):
        show_models(summary)
    if summary.get("example"):
        show_recommendations(summary["example"])
    print("\nAsk it something:")
    for query in QUERIES:
        print(f'  nightshift sql --config {config} "{query}"')
    root = summary["root"]
    print(f"\nEverything lies under {root}; any DuckDB client reads {root}/catalog.duckdb, also while a night writes.")


def show_step(job: str, summary: Mapping[str, Any]) -> None:
    """Print what one step did."""
    for row in _overview(summary):
        _line(*row)
    if summary.get("models"):
        show_models(summary)
    if not _overview(summary) and not summary.get("models"):
        _line(job, "done")


def show_plans(plans: Sequence[Mapping[str, Any]]) -> None:
    """Print dry runs."""
    for plan in plans:
        said = plan["estimate"]
        _line(plan["feature"], _wanted(plan))
        tokens = f"{said['prompt_tokens']:,} prompt tokens, at most {said['output_tokens']:,} output tokens"
        _line("", f"{said['prompts']:,} prompts to send, {tokens}")
        if said["seconds"] is not None:
            _line(
                "",
                f"at most {said['seconds']:,.0f} s at the last night's {plan['tokens_per_second'] or 0:,.0f} tokens/s",
            )
        else:
            _line("", "no night has generated this yet, so its time is not known")
        if said["cost"] is not None:
            _line("", f"at most {said['cost']:,.2f} at the configured price")
    _line("", "nothing was written")


def show_models(summary: Mapping[str, Any]) -> None:
    """Print what every model scores without and with the features, with intervals of the difference."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    print("\nOn the test rows, with 95 % intervals of the difference over users:")
    table = Table(box=box.SIMPLE, padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column.replace(" ", "\n"), justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for row in _model_rows(summary):
        table.add_row(*(cell.replace(" [", "\n[") for cell in row))
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    counts = [f"{summary[f'{part}_rows']:,} {part}" for part in PARTS if f"{part}_rows" in summary]
    print(f"Rows: {', '.join(counts)}. An item with at most {summary['cold_at_most']} training rows is cold.")


def show_recommendations(example: Mapping[str, Any]) -> None:
    """Print recommendations for one user, with titles."""
    print(f"\nFor user {example['user_id']}:")
    for row in example["items"]:
        print(f"  {row['rank']:>3}. {row['title']}  ({row['score']:.3f})")


def show_frame(frame: pl.DataFrame, output: str) -> None:
    """Print a query's result as a table, csv or json. A table is as wide as it must be, except on a terminal."""
    if output == "csv":
        sys.stdout.write(_flat(frame).write_csv())
    elif output == "json":
        frame.write_ndjson(sys.stdout.buffer)
    else:
        width = None if sys.stdout.isatty() else -1
        with pl.Config(tbl_rows=40, tbl_cols=-1, tbl_width_chars=width, fmt_str_lengths=80):
            print(frame)


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The same summary as Markdown, for a Prefect artifact."""
    lines = ["| what | how much |", "|---|---|"]
    lines += [f"| {name or ' '} | {text} |" for name, text in _overview(summary)]
    if summary.get("models"):
        lines += ["", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in _model_rows(summary)]
    return "\n".join(lines)


def _overview(summary: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    if summary.get("already_done"):
        rows.append(("night", "this logical date was done before; nothing ran"))
    if "rows_read" in summary or "ingest" in summary:
        data = summary.get("ingest", summary)
        kept = f"{data['interactions']:,} kept, {data['users']:,} users, {data['items']:,} items"
        reasons = _reasons(data["quarantined_by_reason"])
        rows.append(("data", f"{data['rows_read']:,} rows read, {data['quarantined']:,} quarantined{reasons}; {kept}"))
    for done in summary.get("features", []):
        rows += _feature_rows(done)
    return rows + [(done["retriever"], _retrieval(done)) for done in summary.get("retrievers", [])]


def _retrieval(done: Mapping[str, Any]) -> str:
    """What a retriever finds of what users of the test rows turned to next."""

    def found(part: Mapping[str, float]) -> str:
        shares = [f"HR@{name.removeprefix('hr@')} {part[name]:.3f}" for name in part if name.startswith("hr@")]
        return f"{', '.join(shares)}, NDCG@10 {part['ndcg@10']:.3f} over {part['queries']:,} test queries"

    test = done["test"]
    cold = f"; cold items: {found(test['cold_items'])}" if "cold_items" in test else ""
    how = f"trained in {done['seconds']:,.0f} s" if done["trained"] else "unchanged"
    return f"{done['model']}, {how}, version {done['version']}: {found(test['all'])}{cold}"


def _feature_rows(done: Mapping[str, Any]) -> list[Row]:
    sent, encoding = done["generation"], done["encoding"]
    speed = f", {done['tokens']:,} tokens at {done['tokens_per_second']:,}/s" if done["tokens"] else ""
    passed = f"{done['accepted']:,} accepted, {sum(done['rejected'].values()):,} rejected{_reasons(done['rejected'])}"
    vectors = (
        f"{encoding['encoded']:,} texts encoded, {encoding['cached']:,} cached, {encoding['truncated']:,} truncated"
    )
    return [
        (done["feature"], _wanted(done)),
        ("  prompts", f"{sent['sent']:,} sent{speed}, {sent['set_aside']:,} set aside, {sent['errors']:,} failed"),
        ("  texts", passed),
        ("  vectors", f"{vectors}; version {done['version']}"),
    ]


def _wanted(counts: Mapping[str, Any]) -> str:
    skipped = sum(counts["skipped"].values())
    return (
        f"{counts['wanted']:,} texts wanted: {counts['new']:,} new, {counts['cached']:,} cached, "
        f"{skipped:,} skipped{_reasons(counts['skipped'])}"
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return " (" + ", ".join(f"{reason} {n:,}" for reason, n in counts.items()) + ")" if counts else ""


def _model_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Rows of `COLUMNS` for each model: all test rows, those of cold items, and of pairs that are judged apart."""

    def number(metrics: Mapping[str, Any] | None, name: str) -> str:
        return "" if not metrics or metrics.get(name) is None else f"{metrics[name]:.4f}"

    def interval(said: Mapping[str, Any] | None, name: str) -> str:
        found = (said or {}).get(name)
        return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]" if found else ""

    rows = []
    for model in summary["models"]:
        base, text = model.get("without"), model.get("with")
        for label, prefix in (("all", ""), ("cold items", "cold_"), ("pairs", "pairs_"), ("others", "other_pairs_")):
            if f"{prefix}rows" not in (base or text or {}):
                continue
            auc, loss = f"{prefix}auc", f"{prefix}logloss"
            gains = [interval(model.get(gain), auc) for gain in ("gain", "permuted_gain")]
            numbers = [number(base, loss), number(text, loss), interval(model.get("gain"), loss)]
            rows.append([model["model"], label, number(base, auc), number(text, auc), *gains, *numbers])
    return rows


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    return frame.with_columns(pl.col(name).map_elements(str, return_dtype=pl.String) for name in nested)


def _line(name: str, text: str) -> None:
    print(f"{name:<18} {text}")
