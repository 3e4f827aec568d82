"""A named protocol decides labels and split, is complete, and refuses data that is not the source's."""

from pathlib import Path

import polars as pl
import pytest

from flows import learning, protocols, steps
from flows.config import RunConfig, load_config
from storage.errors import ConfigError, DataError
from storage.ingest import ingest
from storage.interactions import Dataset
from storage.snapshot import Snapshot, take_snapshot
from storage.split import assign
from tests.flows.test_night import TINY

PROTOCOL = """
source = "nowhere, section 1"
dataset = "{dataset}"
stands_in = ""
[labels]
rating_above = 3.5
min_history = 2
[split]
kind = "row_counts"
train = 100
validation = 50
[rows]
train = 100
all = {all}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of protocols in place of the shipped ones."""
    monkeypatch.setattr(protocols, "FOLDER", tmp_path)
    return tmp_path


def run(folder: Path, *, more: str = "") -> Path:
    path = folder / "run" / "tiny.toml"
    path.parent.mkdir(exist_ok=True)
    text = TINY.format(root=folder / "store", users=20).replace('[split]\nkind = "ratio"\ntest = 0.2\n', more)
    path.write_text(f'protocol = "mine"\n{text}')
    return path


def test_a_protocol_decides_labels_and_split_and_counts_its_rows(folder: Path) -> None:
    (folder / "mine.toml").write_text(PROTOCOL.format(dataset="world", all=1))
    config = load_config(run(folder))
    steps.ingest(config)

    assert (config.labels.rating_above, config.labels.min_history, config.split.train) == (3.5, 2, 100)  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"protocol 'mine' \(nowhere, section 1\): [\d,]+ rows in all where it has 1\."):
        learning.snapshot(config)
    n_rows = len(take(config))
    (folder / "mine.toml").write_text(PROTOCOL.format(dataset="world", all=n_rows))
    assert len(learning.snapshot(config).samples) == n_rows
    (folder / "mine.toml").write_text(PROTOCOL.format(dataset="ml-1m", all=n_rows))
    with pytest.raises(DataError, match="of dataset 'ml-1m', but this run reads 'world'"):
        learning.snapshot(config)


def take(config: RunConfig) -> pl.DataFrame:
    return learning.snapshot(config.model_copy(update={"protocol": None})).samples


def test_a_run_cannot_say_its_protocol_and_something_else(folder: Path) -> None:
    (folder / "mine.toml").write_text(PROTOCOL.format(dataset="world", all=1))
    with pytest.raises(ConfigError, match=r"leave out \[split\]"):
        load_config(run(folder, more='[split]\nkind = "ratio"\n'))
    (folder / "mine.toml").unlink()
    with pytest.raises(ConfigError, match="no 'mine' in"):
        load_config(run(folder))


@pytest.mark.parametrize("name", protocols.available())
def test_every_protocol_is_a_valid_run(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    text = TINY.format(root=tmp_path, users=20).replace('[split]\nkind = "ratio"\ntest = 0.2\n', "")
    path.write_text(f'protocol = "{name}"\n{text}')

    assert load_config(path).protocol == name
    assert protocols.load(name).rows


# ------------------------------------------------------------------------------------------------ the papers' numbers


@pytest.fixture(scope="module")
def ml_1m(realdata: Path) -> Dataset:
    return ingest("movielens", {"path": realdata / "ml-1m"}).dataset


@pytest.fixture(scope="module")
def book_crossing(realdata: Path) -> Dataset:
    return ingest("book_crossing", {"path": realdata / "book-crossing"}).dataset


def taken(dataset: Dataset, name: str, tmp_path: Path) -> Snapshot:
    path = tmp_path / "run.toml"
    text = TINY.format(root=tmp_path, users=20).replace('[split]\nkind = "ratio"\ntest = 0.2\n', "")
    path.write_text(f'protocol = "{name}"\n{text}')
    config = load_config(path)
    return take_snapshot(
        dataset,
        **config.labels.model_dump(),
        split=lambda rows: assign(rows, config.split, clock=dataset.clock),
    )


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ml-1m-global-time", "rella-ml-1m", "kar-ml-1m"])
def test_ml_1m_has_the_numbers_of_the_protocol(name: str, ml_1m: Dataset, tmp_path: Path) -> None:
    protocols.check(protocols.load(name), taken(ml_1m, name, tmp_path))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["rella-book-crossing", "book-crossing-by-user"])
def test_book_crossing_has_the_numbers_of_the_protocol(name: str, book_crossing: Dataset, tmp_path: Path) -> None:
    protocols.check(protocols.load(name), taken(book_crossing, name, tmp_path))


@pytest.mark.realdata
def test_ml_1m_without_its_true_times_is_refused_by_collm(ml_1m: Dataset, tmp_path: Path) -> None:
    """Where the times end in 2000 there are no twenty months from 2001 on; with GroupLens' own the numbers hold."""
    if ml_1m.interactions["timestamp"].max() > 991_353_600:  # type: ignore[operator]
        protocols.check(protocols.load("collm-ml-1m"), taken(ml_1m, "collm-ml-1m", tmp_path))
        return
    with pytest.raises(DataError, match="no row with 0 earlier rows of the same user, from 991353600 on"):
        taken(ml_1m, "collm-ml-1m", tmp_path)
