"""Would a test notice if the store's code did something else? One small change at a time, and the tests that must fail.

    python -m tests.faults.mutation [--sample 60] [--seed 0] [FILE ...]      for instance: storage/lock.py

A mutant is the file with one operator, constant, condition or statement changed, in a copy of the project of which only
`storage` differs. It is killed where a test of its file fails or does not end in time. Docstrings, type annotations and
messages of errors are left alone. Prints the survivors, and the share that was killed.
"""

import argparse
import ast
import copy
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  so that no mutant pays for it
import hypothesis  # noqa: F401
import numpy as np
import polars as pl  # noqa: F401
import pytest

Change = Callable[[Any], None]
ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "storage/files.py": ("storage/test_files.py", "storage/test_features.py"),
    "storage/cache.py": ("storage/test_cache.py",),
    "storage/disk.py": ("storage/test_disk.py", "storage/test_files.py", "faults/test_power_loss.py"),
    "storage/lock.py": ("storage/test_lock.py",),
    "storage/snapshot.py": ("storage/test_snapshot.py", "faults/test_joins.py"),
    "storage/features.py": ("storage/test_features.py",),
}
"""File -> the tests that are to notice, the quickest first."""
PATIENCE = 900
"""Seconds after which a mutant that has not ended counts as killed."""
OPTIONS = ("-x", "-q", "-pno:cacheprovider", "-Wignore::pytest.PytestAssertRewriteWarning", "-knot racing")
"""Of pytest. It warns of libraries that were imported before it; races of processes take longer than all the rest."""
SWAPS: dict[type, type] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, what was changed, the changed source) of every mutant of `source`."""
    tree = ast.parse(source)
    spared = {id(inside) for node in ast.walk(tree) for inside in _spared(node)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in spared:
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(_at(changed, place))
            yield getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed))


def _at(tree: ast.AST, place: int) -> ast.AST:
    return next(node for number, node in enumerate(ast.walk(tree)) if number == place)


def _spared(node: ast.AST) -> Iterator[ast.AST]:
    """What inside `node` changes nothing that a caller relies on: docstrings, annotations, words of messages."""
    kept: list[ast.AST | None] = []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        kept.append(node)
    elif isinstance(node, ast.Raise | ast.JoinedStr):
        kept += [node.exc, node.cause] if isinstance(node, ast.Raise) else [node]
    elif isinstance(node, ast.AnnAssign | ast.arg):
        kept.append(node.annotation)
    elif isinstance(node, ast.FunctionDef):
        kept += [node.returns, *node.decorator_list]
    elif isinstance(node, ast.ClassDef):
        kept += node.decorator_list
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("logger.warning", "logging.getLogger", "re.compile"):
        kept.append(node)
    for one in kept:
        if one is not None:
            yield from ast.walk(one)


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """(what, how) of the ways in which one node can be changed in place."""
    said = ast.unparse(node).split("\n")[0]
    match node:
        case ast.Compare(ops=operators):
            for place, operator in enumerate(operators):
                yield f"{said}: another comparison", _set("ops", place, SWAPS[type(operator)]())
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in SWAPS:
            yield f"{said}: another operator", _put("op", SWAPS[type(operator)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"{said}: the opposite", _put("operand", ast.UnaryOp(ast.Not(), operand))
        case ast.Constant(value=bool(value)):
            yield f"{value}: the opposite", _put("value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield f"{value}: one more", _put("value", value + 1)
        case ast.Constant(value=str(value)) if value:
            yield f"{value!r}: another text", _put("value", f"{value}X")
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield f"{said}: nothing returned", _put("value", ast.Constant(None))
        case ast.If():
            for value in (True, False):
                yield f"{said} {'always' if value else 'never'}", _put("test", ast.Constant(value))
    for place, statement in enumerate(
        getattr(node, "body", ()) if isinstance(node, ast.stmt | ast.ExceptHandler) else ()
    ):
        if isinstance(statement, ast.AugAssign) or (isinstance(statement, ast.Expr) and not _is_doc(statement)):
            yield f"{ast.unparse(statement)}: left out", _set("body", place, ast.Pass())


def _put(field: str, value: object) -> Change:
    return lambda node: setattr(node, field, value)


def _set(field: str, place: int, value: object) -> Change:
    return lambda node: getattr(node, field).__setitem__(place, value)


def _is_doc(statement: ast.Expr) -> bool:
    return isinstance(statement.value, ast.Constant)


def copied(folder: Path) -> Path:
    """A copy of the project under `folder`, of which the tests and `storage` are real and the rest are links."""
    for path in ROOT.iterdir():
        if path.name in ("storage", "tests"):
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    return folder


def survives(project: Path, file: str, source: str) -> bool:
    """Whether every test of `file` passes with `source` in its place, in a process forked from this one."""
    good = (project / file).read_text()
    (project / file).write_text(source)
    child = os.fork()  # libraries are imported already, of nightshift nothing is
    if child == 0:
        _test(project, [f"tests/{name}" for name in TESTS[file]])
    end = time.monotonic() + PATIENCE
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.05)
    if ended[0] == 0:
        os.killpg(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    (project / file).write_text(good)
    return ended[1] == 0


def _test(project: Path, tests: list[str]) -> None:
    """Run tests of the copy, silently, and end this process with pytest's status."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.chdir(project)
    os.environ["PYTHONPATH"] = sys.path[0] = str(project)
    sys.dont_write_bytecode = True  # what Python keeps of a file is told by its size and second: mutants are too alike
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    status = 1
    try:
        status = int(pytest.main([*OPTIONS, *tests]))
    finally:
        os._exit(status)


def main() -> int:
    """Try a sample of all mutants of the files asked for; 1 where fewer than four of five are killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"some of {', '.join(TESTS)}; all by default")
    parser.add_argument("--sample", type=int, default=0, help="mutants to try, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.files) - set(TESTS)):
        parser.error(f"no tests are known for {unknown[0]}; there are: {', '.join(TESTS)}")
    every = [(file, *one) for file in asked.files or TESTS for one in mutants((ROOT / file).read_text())]
    order = np.random.default_rng(asked.seed).permutation(len(every))[: asked.sample or len(every)]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        project = copied(Path(folder))
        for file in asked.files or TESTS:
            if not survives(project, file, (ROOT / file).read_text()):
                sys.exit(f"the tests of {file} fail without any change, so they would seem to kill every mutant")
        for tried, place in enumerate(order, start=1):
            file, line, what, source = every[place]
            alive = survives(project, file, source)
            killed += not alive
            print(f"{'SURVIVED' if alive else 'killed  '} {file}:{line} {what}", flush=True)
            if tried % 10 == 0 or tried == len(order):
                print(f"{killed} of {tried} mutants killed ({killed / tried:.0%}); there are {len(every)}", flush=True)
    return int(killed < 0.8 * len(order))


if __name__ == "__main__":
    sys.exit(main())
