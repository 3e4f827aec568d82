"""Ids, names and titles from anywhere are data: no SQL runs, no path is followed, no code is loaded."""

import ast
from pathlib import Path

import polars as pl
import pytest

from flows.config import load_config
from flows.steps import generate, ingest, publish_catalog
from storage.catalog import query
from storage.errors import ConfigError
from tests.flows.test_night import TINY

ROOT = Path(__file__).resolve().parents[2]
EVIL = (
    *(
        "'; DROP TABLE nights; --",
        'a"; DROP VIEW items; --',
        "../../etc/passwd",
        "a/b\\c",
        "$(id)",
        "`id`",
        "%s{0}${x}",
    ),
    *(
        "<script>alert(1)</script>",
        "NULL",
        "null",
        "nan",
        "0x00",
        "Robert'); --",
        "\\x00",
        "é",
        "a" * 300,
        "🎬",
        "x\ty",
    ),
    *("read_parquet('/etc/passwd')", "-1", "1e309", "true", "{'a': 1}", "[]", "';ATTACH 'evil.db';--", "* FROM nights"),
)


def test_ids_titles_and_names_are_only_ever_data(tmp_path: Path) -> None:
    """Of users, items and the data set, through ingest, texts and every view of the catalog."""
    ratings = [(user, f"{item}-{n}", 1 + n % 5, 100 * n + 1) for user in EVIL for n, item in enumerate(EVIL[:8])]
    pl.DataFrame(ratings, schema=["u", "i", "r", "t"], orient="row").write_csv(tmp_path / "r.csv")
    items = {"i": [f"{item}-{n}" for n, item in enumerate(EVIL[:8])], "title": list(EVIL[:8])}
    pl.DataFrame(items).write_csv(tmp_path / "i.csv")
    own = TINY.format(root=tmp_path / "store", users=1).replace('source = "world"\nusers = 1\nitems = 60', "{dataset}")
    dataset = f"""source = "csv"
name = "../../x'; DROP TABLE nights; --"
domain = "general"
interactions = {{path = "{tmp_path}/r.csv", user = "u", item = "i", rating = "r", timestamp = "t"}}
items = {{path = "{tmp_path}/i.csv", item = "i", title = "title"}}"""
    (tmp_path / "own.toml").write_text(own.replace("{dataset}", dataset))
    config = load_config(tmp_path / "own.toml")
    before = set(tmp_path.iterdir())
    ingest(config)
    for name in config.features:
        generate(config, name)
    publish_catalog(config)

    assert before | {tmp_path / "store"} == set(tmp_path.iterdir())
    users = query(config.store.root, "SELECT DISTINCT user_id FROM interactions")["user_id"]
    assert {user.strip() for user in EVIL} == set(users)
    assert set(query(config.store.root, "SELECT user_id FROM user_preference")["user_id"]) == set(users)
    assert query(config.store.root, "SELECT count(*) FROM nights").item() == 0
    for item in items["i"]:
        wanted = item.replace("'", "''")
        assert len(query(config.store.root, f"FROM nearest_items('{wanted}', 3)")) == 3


@pytest.mark.parametrize("section", ["features", "models"])
def test_a_section_cannot_be_called_by_a_path(section: str, tmp_path: Path) -> None:
    kinds = {"features": 'prompt = "item_knowledge"\nengine = "rule"', "models": 'kind = "deepfm"'}
    text = TINY.format(root=tmp_path / "store", users=5) + f'[{section}."../../../evil"]\n{kinds[section]}\n'
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match="cannot name anything stored"):
        load_config(tmp_path / "own.toml")


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load"}


@pytest.mark.parametrize("room", ["storage", "llm_features", "ctr_models", "flows"])
def test_nothing_that_is_read_can_bring_code(room: str) -> None:
    """No pickles, no torch.load, no shell, no code from a model's repository."""
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not names & FORBIDDEN, path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in CALLS, path
                for option in node.keywords:
                    value = getattr(option.value, "value", None)
                    assert not (option.arg in ("shell", "trust_remote_code") and value is not False), (path, option.arg)
