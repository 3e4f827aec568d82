"""What the processes of the fault tests do; imported by a server that forks them, so nothing here runs at import."""

import contextlib
import os
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from llm_features.engines import template
from storage import files
from storage.errors import StoreError
from tests.faults.publishing import see_texts

PATIENCE = 120
"""Seconds that one process waits for another at most."""


def server() -> Any:
    """A context whose processes are forked from one that has imported everything and computed nothing."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "tests.faults.processes", "flows.cli", "flows.steps"])
    return context


def command(arguments: list[str], sent: Path) -> None:
    """`nightshift <arguments>`; every prompt that the template engine answers adds a byte to the file `sent`."""
    from flows.cli import main

    counter = os.open(sent, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    answer = template.Engine.generate

    def counted(*args: Any, **options: Any) -> Iterator[Any]:
        for completion in answer(*args, **options):
            os.write(counter, b".")
            yield completion

    template.Engine.generate = counted  # type: ignore[method-assign]
    sys.argv = ["nightshift", *arguments]
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        main()


def racer(root: Path, name: str, races: int, together: Any, results: Any) -> None:
    """Publish in every race, having chosen the number of the version when the other one has; tell who won."""
    won = []

    def write(path: Path) -> None:
        together.wait(PATIENCE)
        path.write_text(name)

    for race in range(races):
        together.wait(PATIENCE)
        try:
            files.publish(root, {"a.txt": write}, content_hash=f"{name} {race}", meta={"by": name})
            won.append("won")
        except StoreError as error:
            won.append(str(error))
        together.wait(PATIENCE)
    results.put((name, won))


def reader(root: Path, reads: Any, stop: Any, results: Any) -> None:
    """Read the newest version again and again; tell what went wrong, or ""."""
    try:
        while not stop.is_set():
            assert see_texts(root) is not None
            with reads.get_lock():
                reads.value += 1
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")
        raise
    results.put("")
