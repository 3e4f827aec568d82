"""Versions appear whole or not at all, and damage is named."""

import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path

import polars as pl
import pytest

from storage import files
from storage.disk import write_atomic
from storage.errors import ConfigError, StoreError


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


def test_a_publish_flushes_everything_before_it_can_be_seen(tmp_path: Path, on_disk: list[str]) -> None:
    """Each file, the manifest last, the folder, then the name; equal content flushes the name again."""
    files.publish(
        tmp_path / "t",
        {"a": lambda path: path.write_text("1"), "b": lambda path: path.write_text("2")},
        content_hash="h",
        meta={},
    )
    new = "t/.v000001.*"
    first = ["flush .", *(f"flush {new}/{name}" for name in ("a", "b", files.MANIFEST)), f"flush {new}"]
    assert on_disk == [*first, f"rename {new} -> t/v000001", "flush t"]
    on_disk.clear()
    files.publish(tmp_path / "t", {}, content_hash="h", meta={})
    assert on_disk == ["flush t"]


def test_what_a_manifest_says(tmp_path: Path) -> None:
    before = int(time.time())
    version = publish(tmp_path / "t", "four")
    assert version.manifest["files"] == {"a.txt": {"sha256": hashlib.sha256(b"four").hexdigest(), "bytes": 4}}
    assert (version.content_hash, version.meta) == ("hash of four", {"said": "four"})
    assert before <= version.manifest["created_at"] <= time.time()
    assert version.path == files.path_of(tmp_path / "t", 1) == tmp_path / "t" / "v000001"
    assert version == files.read_version(version.path)


def test_a_version_that_came_to_be_meanwhile_stays_and_is_named(tmp_path: Path) -> None:
    def slow(path: Path) -> None:
        path.write_text("late")
        publish(tmp_path, "early")

    with pytest.raises(StoreError, match=r"another writer published .*v000001 meanwhile; run the command again"):
        files.publish(tmp_path, {"a.txt": slow}, content_hash="late", meta={})
    assert [path.name for path in tmp_path.iterdir()] == ["v000001"]
    assert files.checked(files.version(tmp_path), "a.txt").read_text() == "early"


def test_a_rename_that_is_refused_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(old: object, new: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        with pytest.raises(StoreError, match=r"cannot write .*v000001: Read-only file"):
            publish(tmp_path, "one")
    assert list(tmp_path.iterdir()) == []
    assert publish(tmp_path, "one").number == 1


def test_only_folders_called_like_versions_count(tmp_path: Path) -> None:
    assert (files.numbers(tmp_path / "t"), files.versions(tmp_path / "t"), files.latest(tmp_path / "t")) == (
        [],
        [],
        None,
    )
    for name in (".v000009.dead.tmp", "v000010", "v12", "w000011", "v000003x", "v1000000"):
        (tmp_path / "t" / name).mkdir(parents=True)
    assert files.numbers(tmp_path / "t") == [10, 1_000_000]
    with pytest.raises(StoreError, match=r"has no version at all; there are: none"):
        files.version(tmp_path)
    with pytest.raises(StoreError, match=r"has no version 7; there are: 10, 1000000"):
        files.version(tmp_path / "t", 7)


@pytest.mark.parametrize("name", ["a", "_a", "7", "item.text-2", "x" * 100])
def test_a_name_is_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    assert files.named(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".a", "x" * 101, "a\n", "é"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name anything stored"):
        files.named(tmp_path, name)


def test_a_version_is_held_for_as_long_as_it_is_read(tmp_path: Path) -> None:
    version = publish(tmp_path, "one")
    assert not files.is_held(version)
    with files.held(version):
        assert files.is_held(version)
        with files.held(version):  # readers do not wait for each other
            assert files.is_held(version)
        assert files.is_held(version)
    assert not files.is_held(version)
    (version.path / files.MANIFEST).unlink()
    with pytest.raises(StoreError, match="cannot read"), files.held(version):
        pass
    with pytest.raises(StoreError, match="cannot read"):
        files.is_held(version)


def test_verify_names_each_kind_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a", "b", "c", "d")
    write = {name: lambda path: path.write_text("good") for name in names}
    version = files.publish(tmp_path, write, content_hash="h", meta={})
    assert files.verify(version) == []
    (version.path / "a").unlink()
    (version.path / "b").write_text("longer")
    (version.path / "c").write_text("evil")
    real = files.sha256_file

    def unreadable(path: Path) -> str:
        if path.name == "d":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(files, "sha256_file", unreadable)
    assert files.verify(version) == [
        f"{version.path}/a is missing",
        f"{version.path}/b has 6 bytes; its manifest says 4",
        f"{version.path}/c is damaged: its sha256 is not the one in its manifest",
        f"{version.path}/d cannot be read: Input/output error",
    ]
    for name, said in (("a", "is missing or damaged"), ("c", "is missing or damaged"), ("x", "is missing or damaged")):
        with pytest.raises(StoreError, match=rf"/{name} {said}"):
            files.checked(version, name)
    with pytest.raises(StoreError, match=r"cannot read .*/d: Input/output error"):
        files.checked(version, "d")


def test_a_table_is_read_back_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1, 2]})
    write = {"t.parquet": frame.write_parquet, "u.parquet": lambda path: path.write_text("no table")}
    version = files.publish(tmp_path, write, content_hash="h", meta={})
    assert files.read_table(version, "t.parquet").equals(frame)
    with pytest.raises(StoreError, match=r"cannot read .*u\.parquet"):
        files.read_table(version, "u.parquet")


def test_write_atomic_replaces_and_names_what_it_cannot_write(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")

    assert (tmp_path / "a").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(StoreError, match="cannot write"):
        write_atomic(tmp_path / "a" / "b", b"3")
