"""Whatever ends a publish, readers see the old state or the new, and the same command then finishes it."""

import contextlib
import errno
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows import steps
from flows.cli import main
from storage import files
from storage.errors import StoreError
from tests.faults.calls import Call, Fail, Kill, Plan, carry_out, watched
from tests.faults.publishing import PUBLISHINGS, Publishing, publish_watched
from tests.flows.test_night import tiny

pytestmark = pytest.mark.slow

CODES = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)


def prepared(one: Publishing, folder: Path) -> tuple[Path, object, object, list[Call]]:
    """(the old state on disk, what is seen of it, what is seen of the new one, the calls of the act)."""
    old, new = folder / "old", folder / "new"
    old.mkdir()
    one.before(old)
    shutil.copytree(old, new)
    with watched(new) as calls:
        one.act(new)
    return old, one.see(old), one.see(new), list(calls)


@pytest.mark.parametrize("name", PUBLISHINGS)
def test_killed_at_every_call_before_in_and_after_it(name: str, tmp_path: Path) -> None:
    one = PUBLISHINGS[name]
    old, before, after, calls = prepared(one, tmp_path)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["__main__", "tests.faults.publishing"])
    outcomes = set()
    for call in calls:
        for when in ("before", "middle", "after") if call.name in ("write", "write_parquet") else ("before", "after"):
            root = tmp_path / f"{call.number}-{when}"
            shutil.copytree(old, root)
            writer = processes.Process(target=publish_watched, args=(name, root, Kill(call.number, when)))
            writer.start()
            writer.join()

            assert writer.exitcode == -signal.SIGKILL, (call, when)
            seen = one.see(root)
            assert seen in (before, after), f"killed {when} {call}: readers see {seen}"
            outcomes.add("old" if seen == before else "new")
            one.act(root)
            assert one.see(root) == after, f"killed {when} {call}: the next run does not heal"
            shutil.rmtree(root)
    assert {"old", "new"} == outcomes


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", CODES, ids=[errno.errorcode[code] for code in CODES])
@pytest.mark.parametrize("name", PUBLISHINGS)
def test_the_nth_call_fails(name: str, code: int, persistent: bool, tmp_path: Path) -> None:
    """For every n until the act succeeds: an error that names a file of the store, and nothing committed is lost."""
    one = PUBLISHINGS[name]
    old, before, after, calls = prepared(one, tmp_path)
    failed = 0
    for number in range(1, len(calls) + 1):
        root = tmp_path / f"{number}"
        shutil.copytree(old, root)
        said = ""
        try:
            with watched(root, Fail(number, code, persistent)):
                one.act(root)
        except StoreError as error:
            failed, said = failed + 1, str(error)
        if said:
            assert str(root) in said, f"{calls[number - 1]}: the error names no file: {said}"
        else:
            assert one.see(root) == after, f"{calls[number - 1]} failed, and the writer was told all is well"
        seen = one.see(root)
        assert seen in (before, after), f"{calls[number - 1]} failed: readers see {seen}"
        one.act(root)
        assert one.see(root) == after, f"{calls[number - 1]} failed: the next run does not heal"
        shutil.rmtree(root)
    assert failed > len(calls) // 2


@pytest.mark.parametrize("code", CODES, ids=[errno.errorcode[code] for code in CODES])
def test_a_command_whose_nth_call_fails_ends_with_a_sentence(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[int, int], int]
) -> None:
    """The exit status is not 0, the file is named, and the same command then finishes the work."""
    path, config = tiny(tmp_path, users=15)
    root = config.store.root
    monkeypatch.setattr("sys.argv", ["nightshift", "generate", "-c", str(path)])
    steps.ingest(config)
    shutil.copytree(root, tmp_path / "old")

    def generate(plan: Plan = carry_out) -> tuple[object, list[Call]]:
        with watched(root, plan) as calls, pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, list(calls)

    status, calls = generate()
    truth = {name: files.version(root / "features" / name).content_hash for name in config.features}
    assert status == 0
    for number in np.random.default_rng(code).choice(len(calls), min(len(calls), count(4, len(calls))), replace=False):
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "old", root)
        status = generate(Fail(int(number) + 1, code, persistent=True))[0]
        assert status == 0 or str(root) in str(status), f"{calls[number]}: {status}"
        assert generate()[0] == 0
        assert truth == {name: files.version(root / "features" / name).content_hash for name in config.features}


@pytest.mark.parametrize("code", CODES, ids=[errno.errorcode[code] for code in CODES])
@pytest.mark.parametrize("name", PUBLISHINGS)
def test_a_reader_whose_nth_call_fails_is_told_or_sees_the_truth(name: str, code: int, tmp_path: Path) -> None:
    one = PUBLISHINGS[name]
    one.before(tmp_path)
    truth = one.see(tmp_path)
    with watched(tmp_path) as calls:
        one.see(tmp_path)
    for number in range(1, len(calls) + 1):
        seen = truth
        with watched(tmp_path, Fail(number, code, persistent=False)), contextlib.suppress(StoreError):
            seen = one.see(tmp_path)
        assert seen == truth, calls[number - 1]
