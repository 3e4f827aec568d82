"""Versions appear whole or not at all, and damage is named."""

import json
import multiprocessing
from pathlib import Path

import pytest

from storage import files
from storage.disk import write_atomic
from storage.errors import StoreError


def publish(parent: Path, text: str) -> files.Version:
    return files.publish(
        parent, {"a.txt": lambda p: p.write_text(text)}, content_hash=f"hash of {text}", meta={"said": text}
    )


def test_a_version_is_read_back_with_its_meta(tmp_path: Path) -> None:
    first, second = publish(tmp_path, "one"), publish(tmp_path, "two")

    assert [first.number, second.number] == [1, 2]
    assert second == files.latest(tmp_path)
    assert files.version(tmp_path, 1).meta == {"said": "one"}
    assert files.checked(second, "a.txt").read_text() == "two"
    assert files.verify(second) == []


def test_equal_content_publishes_nothing(tmp_path: Path) -> None:
    first = publish(tmp_path, "one")

    assert first == publish(tmp_path, "one")
    assert [first] == files.versions(tmp_path)


def test_a_failed_write_leaves_the_latest_and_no_rubbish(tmp_path: Path) -> None:
    first = publish(tmp_path, "one")

    def full_disk(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"v000002/a\.txt: No space left on device"):
        files.publish(tmp_path, {"a.txt": full_disk}, content_hash="new", meta={})

    assert [first.path] == list(tmp_path.iterdir())


def test_a_folder_without_its_manifest_is_damage_with_a_name(tmp_path: Path) -> None:
    version = publish(tmp_path, "one")
    (version.path / files.MANIFEST).unlink()

    with pytest.raises(StoreError, match=r"v000001/manifest\.json is missing"):
        files.latest(tmp_path)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    version = publish(tmp_path, "one")
    (version.path / "a.txt").write_text("eno")

    assert [f"{version.path / 'a.txt'} is damaged: its sha256 is not the one in its manifest"] == files.verify(version)
    with pytest.raises(StoreError, match=r"a\.txt is missing or damaged"):
        files.checked(version, "a.txt")


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    version = publish(tmp_path, "one")
    path = version.path / files.MANIFEST
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in (0, 3, 5):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                read = files.read_version(version.path).manifest
            except StoreError:
                continue
            assert json.loads(good) == read  # only white space changed


def test_a_version_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    with pytest.raises(StoreError, match="no version 7; there are: 1"):
        files.version(tmp_path, 7)


def race(parent: Path, start: object, results: object, name: int) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        publish(parent, f"writer {name}")
        results.put("won")  # type: ignore[attr-defined]
    except StoreError as error:
        results.put(str(error))  # type: ignore[attr-defined]


def test_of_writers_racing_for_one_version_the_number_that_won_is_the_number_on_disk(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    writers = [context.Process(target=race, args=(tmp_path, start, results, i)) for i in range(4)]
    for writer in writers:
        writer.start()
    start.set()
    said = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()

    assert said.count("won") == len(files.versions(tmp_path))
    assert all("another writer published" in line for line in said if line != "won")


def test_write_atomic_replaces_and_names_what_it_cannot_write(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")

    assert (tmp_path / "a").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(StoreError, match="cannot write"):
        write_atomic(tmp_path / "a" / "b", b"3")
