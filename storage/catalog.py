"""How do people ask questions in SQL? `catalog.duckdb`: views over the Parquet files of the newest versions.

The catalog is rebuilt under a temporary name and renamed into place, so a reader may keep it open all night while a
run writes: it goes on seeing the versions it opened. File lists come from manifests, never from globs.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import polars as pl

from storage import files
from storage.disk import write_through
from storage.errors import StoreError
from storage.features import feature_sets, folder
from storage.layout import STUDIES, folders
from storage.schema import EARLIEST, FEATURES, INTERACTIONS, ITEMS, QUARANTINE, RECOMMENDATIONS, REJECTED, USERS, Schema

STANDARD_FEATURES = {"user_preference": "user_id", "item_knowledge": "item_id"}
"""Views that are always there, with the name of their entity's column, even before the first night."""

NIGHT_COLUMNS = ["logical_date", "job", "status", "started_at", "seconds", "summary"]
RUN_COLUMNS = ["family", "name", "version", "model", "created_at", "metrics", "lineage"]

_PATHS = re.compile(r"'((?:[^']|'')*\.parquet)'")
_SQL_TYPES = {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Int32: "INTEGER", pl.Float32: "FLOAT", pl.Boolean: "BOOLEAN"}


def path_of(root: Path) -> Path:
    """Where the catalog of a data root is."""
    return root / "catalog.duckdb"


def build_catalog(root: Path, *, nights: Sequence[Mapping], runs: Sequence[Mapping]) -> Path:
    """Rebuild the catalog from what is published now; readers see the old one or the new one.

    nights, runs: flat records (string, number or None values; anything else is stored as JSON text) of the nights
    that ran and the models that were trained. Raises StoreError where the file cannot be written.
    """
    root = root.resolve()

    def write(temporary: Path) -> None:
        try:
            with duckdb.connect(str(temporary)) as connection:
                clocked = _dataset_views(connection, root)
                _feature_views(connection, root, clocked=clocked)
                _table(connection, "nights", nights, NIGHT_COLUMNS)
                _table(connection, "runs", runs, RUN_COLUMNS)
                _recommendation_view(connection, root)
                _study_views(connection, root)
                connection.execute("CHECKPOINT")  # on close it would fail in silence, as on a full disk
        except duckdb.Error as error:
            raise StoreError(f"cannot write {path_of(root)}: {error}; the catalog before it is untouched") from error
        finally:
            temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)

    write_through(path_of(root), write)
    return path_of(root)


def query(root: Path, sql: str) -> pl.DataFrame:
    """Run one read-only SQL statement over the catalog, every file it may read checked against its manifest first.

    Raises StoreError where there is no catalog, where a file is damaged, or the SQL is bad.
    """
    if not path_of(root).is_file():
        raise StoreError(f"{path_of(root)} does not exist yet; run `nightshift nightly` (or `ingest`) first")
    try:
        with duckdb.connect(str(path_of(root)), read_only=True) as connection, contextlib.ExitStack() as holding:
            for version, names in _files_read(connection, sql):
                holding.enter_context(files.held(version))
                for name in names:
                    files.checked(version, name)
            return connection.sql(sql).pl()
    except duckdb.ParserException as error:
        raise StoreError(f"SQL failed: {error}") from error
    except duckdb.Error as error:
        raise StoreError(f"{path_of(root)}: SQL failed: {error}") from error
    except AttributeError as error:  # a statement without a result, such as SET
        raise StoreError("the statement returned no rows; the catalog is read-only") from error


def _files_read(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[files.Version, list[str]]]:
    """Versions and names of the files behind every view that `sql`, or a macro in it, may mention."""
    named = "SELECT {} FROM {} WHERE NOT internal"
    macros = connection.sql(named.format("function_name, macro_definition", "duckdb_functions()")).fetchall()
    said = sql.lower() + "".join(text.lower() for name, text in macros if name.lower() in sql.lower())
    views = connection.sql(named.format("view_name, sql", "duckdb_views()")).fetchall()
    found: dict[Path, list[str]] = {}
    for name, text in views:
        if name.lower().replace('"', '""') in said or "query" in said:  # query('...') may hold any name
            for path in _PATHS.findall(text):
                path = Path(path.replace("''", "'"))
                found.setdefault(path.parent, []).append(path.name)
    return [(files.read_version(folder), names) for folder, names in found.items()]


def _dataset_views(connection: duckdb.DuckDBPyConnection, root: Path) -> bool:
    """Create the views of the data; say whether its times are instants (or only positions)."""
    found = files.latest(root / "dataset")
    clocked = found is not None and found.meta["clock"] == "time"
    tables: dict[str, Schema] = {"interactions": INTERACTIONS, "users": USERS, "items": ITEMS, "quarantine": QUARANTINE}
    for name, schema in tables.items():
        time = ", to_timestamp(timestamp) AS happened_at" if name == "interactions" and clocked else ""
        source = _parquet([found.path / f"{name}.parquet"]) if found else _nothing(schema)
        connection.execute(f"CREATE VIEW {name} AS SELECT *{time} FROM {source}")
    return clocked


def _feature_views(connection: duckdb.DuckDBPyConnection, root: Path, *, clocked: bool) -> None:
    history, rejected = [], []
    names = feature_sets(root)
    instant = _instant("as_of", clocked=clocked)
    for name in names:
        every = files.versions(folder(root, name))
        newest = every[-1]
        entity, dim = f"{newest.meta['entity']}_id", int(newest.meta["dim"])
        connection.execute(
            f"""CREATE VIEW {_name(name)} AS
            SELECT f.entity_id AS {entity}, {instant} AS as_of, to_timestamp(f.created_at) AS created_at,
                   f.n_history, f.text, v.vector::FLOAT[{dim}] AS vector, f.n_tokens, f.truncated, f.text_key
            FROM {_parquet([newest.path / "features.parquet"])} f
            JOIN {_parquet([newest.path / "vectors.parquet"])} v USING (text_hash)
            QUALIFY row_number() OVER (PARTITION BY f.entity_id ORDER BY f.as_of DESC, f.n_history DESC) = 1"""
        )
        for version in every:
            columns = f"""{_text(name)} AS feature_set, {version.number} AS version,
                {_text(version.meta["encoder"])} AS encoder, {_text(json.dumps(version.meta["lineage"]))} AS lineage"""
            history.append(
                f"""SELECT {columns}, entity_id, {instant} AS as_of, to_timestamp(created_at) AS created_at,
                n_history, text, text_key, source_hash FROM {_parquet([version.path / "features.parquet"])}"""
            )
        rejected.append(
            f"""SELECT {_text(name)} AS feature_set, entity_id, {instant} AS as_of, reason, text,
            finish_reason, text_key FROM {_parquet([newest.path / "rejected.parquet"])}"""
        )
    for name, entity in STANDARD_FEATURES.items():
        if name not in names:
            empty = f"SELECT entity_id AS {entity}, as_of, created_at, n_history, text, NULL::FLOAT[] AS vector"
            connection.execute(f"CREATE VIEW {name} AS {empty} FROM {_nothing(FEATURES)}")
    nothing = "SELECT NULL::VARCHAR AS feature_set, NULL::INTEGER AS version, NULL::VARCHAR AS encoder"
    history = history or [f"{nothing}, NULL::VARCHAR AS lineage, * FROM {_nothing(FEATURES)}"]
    rejected = rejected or [f"SELECT NULL::VARCHAR AS feature_set, * FROM {_nothing(REJECTED)}"]
    connection.execute(f"CREATE VIEW feature_history AS {' UNION ALL '.join(history)}")
    connection.execute(f"CREATE VIEW rejected AS {' UNION ALL '.join(rejected)}")
    if "item_knowledge" in names:
        connection.execute(
            """CREATE MACRO nearest_items(wanted, k) AS TABLE
            WITH mine AS (SELECT vector FROM item_knowledge WHERE item_id = wanted)
            SELECT other.item_id, items.title, array_cosine_similarity(other.vector, mine.vector) AS similarity
            FROM item_knowledge other JOIN items USING (item_id), mine
            WHERE other.item_id <> wanted ORDER BY similarity DESC, other.item_id LIMIT k"""
        )


def _recommendation_view(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    found = files.latest(root / "recommendations")
    source = _parquet([found.path / "recommendations.parquet"]) if found else _nothing(RECOMMENDATIONS)
    run = _text(str(found.meta.get("run", ""))) if found else "NULL::VARCHAR"
    connection.execute(f"CREATE VIEW recommendations AS SELECT *, {run} AS run FROM {source}")


def _study_views(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    """`study_<name>`, and `study_<name>_claims` and any further table, for the studies that have tables."""
    for study in folders(root / STUDIES):
        found = files.latest(study)
        if found is not None:
            for file in sorted(name for name in found.manifest["files"] if name.endswith(".parquet")):
                table = file.removesuffix(".parquet")
                view = f"study_{study.name}" + ("" if table == "results" else f"_{table}")
                connection.execute(f"CREATE VIEW {_name(view)} AS SELECT * FROM {_parquet([found.path / file])}")


def _table(connection: duckdb.DuckDBPyConnection, name: str, records: Sequence[Mapping], columns: list[str]) -> None:
    def plain(value: object) -> object:
        return value if value is None or isinstance(value, str | int | float) else json.dumps(value)

    extra = [key for record in records for key in record if key not in columns]
    columns = [*columns, *dict.fromkeys(extra)]
    if records:
        frame = pl.DataFrame([{c: plain(r.get(c)) for c in columns} for r in records], infer_schema_length=None)
    else:
        frame = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    connection.register("records", frame.to_arrow())
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
    connection.unregister("records")


def _parquet(paths: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(_text(str(path)) for path in paths)}])"


def _nothing(schema: Schema) -> str:
    columns = (f"NULL::{_SQL_TYPES[dtype]} AS {name}" for name, dtype in schema.items())  # type: ignore[index]
    return f"(SELECT {', '.join(columns)} WHERE false)"


def _instant(column: str, *, clocked: bool) -> str:
    """Static text has no instant of its own: NULL instead of a date before the universe."""
    return f"CASE WHEN {column} > {EARLIEST} THEN {f'to_timestamp({column})' if clocked else column} END"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
