"""Bad input tables of every source, by the real command: a sentence that names the file, or rows set aside; no harm."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import files
from storage.inspect import inspect
from tests.faults.commands import asked
from tests.faults.tables import AMAZON, BX, CSV, ML, fresh, good_files, spoilt_files
from tests.storage.test_bad_input import content_of

RUN = """
[store]
root = "{root}"
[encoder]
kind = "hashing"
[split]
kind = "ratio"
[dataset]
max_bad_share = {share}
{section}
"""
FEW, MANY = 0.01, 0.5
"""Share of bad rows that may be set aside: the default, and one under which a file with some bad rows is taken."""


def kept(root: Path) -> dict[str, str]:
    """Everything stored but the lock's file."""
    return {name: what for name, what in content_of(root).items() if name != "writer.lock"}


def wrong_with_refusal(ended: object, said: str, file: str, folder: Path) -> Iterator[str]:
    """What a person would miss in the sentence that refuses a table."""
    if not isinstance(ended, str):
        yield f"taken as good: {said}"
        return
    sentence = ended.split("\n")[0]
    if not sentence.startswith("nightshift: ") or "Traceback" in ended + said:
        yield f"no sentence: {ended}{said}"
    if file not in sentence and f"{folder} " not in sentence:
        yield f"names no file: {ended}"
    if " rows are bad" in sentence and "    line " not in ended:
        yield f"names no row: {ended}"


def wrong_with_quarantine(ended: object, said: str, file: str, root: Path) -> Iterator[str]:
    """What is wrong with the store after a table was taken without its bad rows."""
    version = files.latest(root / "dataset")
    if ended != 0 or version is None:
        yield f"refused: {ended}{said}"
        return
    aside = files.read_table(version, "quarantine.parquet").filter(file=file)
    if aside.is_empty() or (aside["line"] < 1).any():
        yield f"no row of {file} was set aside"
    yield from inspect(root)[1]


@pytest.mark.parametrize("source", [ML, CSV, AMAZON, BX])
def test_no_bad_table_harms_the_store(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: Callable[[int, int], int]
) -> None:
    section, root, run = good_files(tmp_path)[source], tmp_path / "store", tmp_path / "run.toml"

    def ingest(share: float) -> tuple[object, str]:
        run.write_text(RUN.format(root=root, share=share, section=section))
        return asked(capsys, "ingest", "-c", str(run))

    fresh(tmp_path, source)
    assert ingest(FEW)[0] == 0
    before, counts, wrong = kept(root), Counter(), {}
    cases = list(spoilt_files(source))
    for name, table, spoil, some in cases[:: len(cases) // count(40, len(cases))]:
        folder = fresh(tmp_path, source)
        spoil(folder)
        found = list(wrong_with_refusal(*ingest(FEW), table.file, folder))
        if before != kept(root):
            found.append("a refused table changed the store")
        counts["refused"] += 1
        if some:
            found += wrong_with_quarantine(*ingest(MANY), table.file, root)
            after = kept(root)
            if not {one: what for one, what in before.items() if one.startswith("dataset/")}.items() <= after.items():
                found.append("a version that was there has changed")
            before = after
            counts["set aside"] += 1
        if found:
            wrong[name] = found

    assert wrong == {}
    print(source, dict(counts))
    assert counts["refused"] >= 40  # of each of four sources
    assert counts["set aside"] >= 10
