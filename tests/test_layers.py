"""Who may import whom? The direction between the rooms, the home of every heavy library, the shape of a module."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "storage": {"storage"},
    "llm_features": {"storage", "llm_features"},
    "ctr_models": {"storage", "ctr_models"},
    "flows": {"storage", "llm_features", "ctr_models", "flows"},
}
"""What of ours each package may import."""

HOMES = {
    "prefect": "flows/",
    "typer": "flows/",
    "rich": "flows/",
    "optuna": "flows/",
    "duckdb": "storage/",
    "vllm": "llm_features/",
    "transformers": "llm_features/",
    "tokenizers": "llm_features/",
    "peft": "llm_features/",
    "openai": "llm_features/",
    "sentence_transformers": "llm_features/encoders/_sentence_model.py",
    "faiss": "ctr_models/",
}
"""Where a library is at home: nothing outside imports it."""

LAZY = {
    "vllm", "transformers", "tokenizers", "peft", "openai", "sentence_transformers", "faiss", "sklearn", "typer",
    "optuna",
}  # fmt: skip
"""Imported inside functions only, except by the file that is nothing without it."""
EAGER = {
    ("flows/cli.py", "typer"),
    ("flows/cli_options.py", "typer"),
    ("flows/cli_study.py", "typer"),
    ("flows/cli_upkeep.py", "typer"),
}

NAMES = {"faiss-cpu": "faiss", "scikit-learn": "sklearn"}
"""Distributions that are called otherwise when imported."""

MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level package of every import in a file, and whether it happens when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found = [node.module or ""]
        else:
            continue
        for name in found:
            yield name.partition(".")[0], id(node) not in inside


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for library, at_import in imports(path):
        assert library not in ROOMS or library in ROOMS[room], f"{room} must not import {library}"
        assert library != "tests", "the product does not import its tests"
        assert named(path).startswith(HOMES.get(library, "")), f"{library} is at home in {HOMES[library]}"
        if library in LAZY and (named(path), library) not in EAGER:
            assert not at_import, f"{library} is loaded by importing the module"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)) or not source.strip(), "no docstring"


def test_every_library_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cpu"], *extras["gpu"]]
    declared = {re.split(r"[\[<>=;]", requirement)[0].strip() for requirement in wanted}
    declared = {NAMES.get(name, name.replace("-", "_")) for name in declared}
    used = {library for path in MODULES for library, _ in imports(path)} - set(ROOMS) - set(sys.stdlib_module_names)
    assert used - declared == set()


def test_the_reader_of_imports_sees_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import prefect.tasks\nfrom vllm import LLM\ndef f():\n    import faiss\n    from ctr_models.zoo import x"
    )
    assert set(imports(path)) == {("prefect", True), ("vllm", True), ("faiss", False), ("ctr_models", False)}
