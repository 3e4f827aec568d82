"""Files arrive whole and checked or not at all, from a server on this machine."""

import gzip
import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from storage import download
from storage.datasets import amazon, book_crossing, movielens
from storage.download import SOURCES, Remote, fetch, fetch_file
from storage.errors import ConfigError, DataError
from tests.storage.sources import write_json_lines, write_ml_1m

FILES: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = FILES.get(self.path)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith("/unsized"):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.path.startswith("/broken") else data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback that serves FILES."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    FILES.clear()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_arrives_with_size_and_checksum_shown(address: str, tmp_path: Path) -> None:
    FILES["/a.gz"] = data = gzip.compress(b"reviews")
    checksum = hashlib.sha256(data).hexdigest()
    said: list[str] = []
    written = fetch_file(Remote(f"{address}/a.gz"), tmp_path / "mine.gz", say=said.append)

    assert written == [tmp_path / "mine.gz"]
    assert written[0].read_bytes() == data
    assert said == [
        f"downloading {address}/a.gz (size not published)",
        f"a.gz: {len(data)} bytes, sha256 {checksum} (measured, none is published)",
    ]
    known = Remote(
        f"{address}/a.gz", bytes=len(data), sha256=checksum, md5=hashlib.md5(data, usedforsecurity=False).hexdigest()
    )
    fetch_file(known, tmp_path / "again.gz", say=said.append)
    assert said[2:] == [
        f"downloading {address}/a.gz ({len(data)} bytes)",
        f"a.gz: {len(data)} bytes, sha256 {checksum} (as published)",
    ]


@pytest.mark.parametrize(
    ("path", "known", "said"),
    [
        ("/missing", {}, "cannot be reached: Not Found"),
        ("/broken", {}, "broke off after 500 of 1,000 bytes"),
        ("/unsized", {"bytes": 2000}, "broke off after 1,000 of 2,000 bytes"),
        ("/good", {"bytes": 999}, "has more than the 999 bytes it may have"),
        ("/good", {"sha256": "0" * 64}, "is not the published file: its sha256 is "),
        ("/good", {"md5": "0" * 32}, "is not the published file: its md5 is "),
    ],
)
def test_what_is_not_the_file_leaves_nothing(address: str, tmp_path: Path, path: str, known: dict, said: str) -> None:
    FILES["/broken"] = FILES["/unsized"] = FILES["/good"] = b"x" * 1000
    with pytest.raises(DataError) as error:
        fetch_file(Remote(f"{address}{path}", **known), tmp_path / "file")

    assert f"{address}{path} {said}" in str(error.value)
    assert everything(tmp_path) == []


def test_a_server_that_is_not_there_is_named(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/x cannot be reached"):
        fetch_file(Remote("http://127.0.0.1:1/x"), tmp_path / "x")


def test_only_named_members_are_unpacked_under_their_own_names(address: str, tmp_path: Path) -> None:
    FILES["/d.zip"] = zipped(
        {"d/ratings.csv": b"r", "../evil": b"e", "/etc/evil": b"e", "d/../../evil": b"e", "d/extra": b"x"}
    )
    folder = tmp_path / "inner"
    written = fetch_file(
        Remote(f"{address}/d.zip", members={"d/ratings.csv": "ratings.csv", "../evil": "tame"}), folder / "d.zip"
    )

    assert written == [folder / "ratings.csv", folder / "tame"]
    assert everything(tmp_path) == ["inner", "inner/ratings.csv", "inner/tame"]


def test_a_link_in_an_archive_is_written_as_a_plain_file(address: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("d/ratings.csv")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    FILES["/d.zip"] = buffer.getvalue()
    fetch_file(Remote(f"{address}/d.zip", members={"d/ratings.csv": "ratings.csv"}), tmp_path / "d.zip")

    assert not (tmp_path / "ratings.csv").is_symlink()
    assert (tmp_path / "ratings.csv").read_bytes() == b"/etc/passwd"


@pytest.mark.parametrize("bad", ["bomb", "missing member", "damaged", "no zip"])
def test_a_bad_archive_is_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setattr(download, "_LARGEST", 100_000)
    data = zipped({"d/other.csv": b"x"}) if bad == "missing member" else zipped({"d/ratings.csv": b"\0" * 5_000_000})
    if bad == "damaged":
        data = zipped({"d/ratings.csv": bytes(range(256)) * 40})
        data = data[:60] + bytes([data[60] ^ 0xFF]) + data[61:]
    FILES["/d.zip"] = b"<html>moved</html>" if bad == "no zip" else data
    with pytest.raises(DataError) as error:
        fetch_file(Remote(f"{address}/d.zip", members={"d/ratings.csv": "ratings.csv"}), tmp_path / "d.zip")

    assert f"{address}/d.zip" in str(error.value)
    assert everything(tmp_path) == []


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(address: str, tmp_path: Path) -> None:
    FILES["/a"] = b"x" * 10

    def interrupt(line: str) -> None:
        if line.startswith("a: 10 bytes"):  # all has arrived under the temporary name
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_file(Remote(f"{address}/a"), tmp_path / "a", say=interrupt)
    assert everything(tmp_path) == []
    assert fetch_file(Remote(f"{address}/a"), tmp_path / "a")[0].read_bytes() == b"x" * 10


def test_movielens_is_fetched_only_when_asked_and_not_there(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_ml_1m(tmp_path / "source")
    members = {f"ml-1m/{name}": (source / name).read_bytes() for name in ("users.dat", "movies.dat", "ratings.dat")}
    FILES["/ml-1m.zip"] = zipped({**members, "ml-1m/README": b"cite us"})
    real = SOURCES["ml-1m"][0]
    monkeypatch.setitem(SOURCES, "ml-1m", (Remote(f"{address}/ml-1m.zip", members=real.members),))
    folder = tmp_path / "data" / "ml-1m"

    with pytest.raises(DataError, match="is not a MovieLens folder"):
        movielens.read(movielens.Config(path=folder))
    assert not folder.exists()
    assert len(movielens.read(movielens.Config(path=folder, download=True)).interactions.rows) == 200
    assert everything(folder) == ["README", "movies.dat", "ratings.dat", "users.dat"]
    FILES.clear()
    assert len(movielens.read(movielens.Config(path=folder, download=True)).interactions.rows) == 200


def test_amazon_and_book_crossing_are_fetched_when_asked(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = {"reviewerID": "u", "asin": "p", "overall": 5.0, "unixReviewTime": 10**9}
    FILES["/r.json.gz"] = write_json_lines(tmp_path / "r.json.gz", [review]).read_bytes()
    FILES["/m.json.gz"] = write_json_lines(tmp_path / "m.json.gz", [{"asin": "p", "title": "T"}]).read_bytes()
    FILES["/bx.zip"] = zipped(
        {
            "BX-Users.csv": b'"User-ID";"Location";"Age"\n"1";"a, b, c";NULL\n',
            "BX-Books.csv": b'"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"\n'
            b'"x";"T";"A";"1";"P"\n',
            "BX-Book-Ratings.csv": b'"User-ID";"ISBN";"Book-Rating"\n"1";"x";"5"\n',
        }
    )
    monkeypatch.setitem(SOURCES, "amazon-beauty", (Remote(f"{address}/r.json.gz"), Remote(f"{address}/m.json.gz")))
    members = SOURCES["book-crossing"][0].members
    monkeypatch.setitem(SOURCES, "book-crossing", (Remote(f"{address}/bx.zip", members=members),))
    config = amazon.Config(reviews=tmp_path / "a" / "reviews.gz", metadata=tmp_path / "a" / "meta.gz", download=True)

    assert len(amazon.read(config).items.rows) == 1
    assert everything(tmp_path / "a") == ["meta.gz", "reviews.gz"]
    assert len(book_crossing.read(book_crossing.Config(path=tmp_path / "bx", download=True)).interactions.rows) == 1


def test_a_folder_that_is_no_edition_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no data set 'movies' can be downloaded; these can: ml-1m, "):
        movielens.read(movielens.Config(path=tmp_path / "movies", download=True))
    with pytest.raises(ConfigError, match="netflix"):
        fetch("netflix", tmp_path)
    assert everything(tmp_path) == []


def test_the_table_names_files_that_the_readers_look_for() -> None:
    assert set(movielens.DAT_FILES) < set(SOURCES["ml-1m"][0].members.values())
    for edition in ("ml-latest-small", "ml-25m", "ml-32m"):
        assert set(movielens.CSV_FILES) < set(SOURCES[edition][0].members.values())
    for remotes in SOURCES.values():
        for remote in remotes:
            assert remote.url.startswith(("https://", "http://"))
            assert remote.sha256 is None or len(remote.sha256) == 64
            assert remote.md5 is None or len(remote.md5) == 32
