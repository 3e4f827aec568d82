"""A study of CTR models through the command line: nested rows, controls, claims that stand, nothing done twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from flows import learning
from flows.cli import app
from flows.config import load_config
from flows.studies.ctr import study
from flows.studies.ctr.plan import Plan
from storage.catalog import query
from storage.errors import ConfigError, StoreError
from storage.features import publish_features
from storage.ingest import Ingested, publish_dataset
from storage.inspect import inspect
from storage.schema import QUARANTINE, REJECTED
from storage.snapshot import Snapshot
from tests.ctr_models.conftest import DIM, make_world

TOML = """
[store]
root = "{root}"
[dataset]
source = "world"
[engines.rule]
kind = "template"
[features.item_knowledge]
prompt = "item_knowledge"
engine = "rule"
[features.user_preference]
prompt = "user_preference"
engine = "rule"
[encoder]
kind = "hashing"
[split]
kind = "ratio"
test = 0.3
[train]
epochs = 3
averaging = 0.9
batch_size = 128
threads = 1
[models.deepfm]
kind = "deepfm"
learning_rate = 5e-3
[models.lr]
kind = "lr"
[recommend]
model = "deepfm"
[sample_efficiency]
models = ["deepfm"]
fractions = [0.5, 1.0]
seeds = [0, 1]
resamples = 100
margin = 0.1
[sample_efficiency.arms.text]
features = ["item_knowledge", "user_preference"]
[sample_efficiency.arms.permuted]
features = ["item_knowledge", "user_preference"]
vectors = "permuted"
[sample_efficiency.arms.random]
features = ["item_knowledge", "user_preference"]
vectors = "random"
[ablation]
models = ["deepfm"]
seeds = [0]
resamples = 100
fractions = [0.5]
[ablation.arms.both]
features = ["item_knowledge", "user_preference"]
[ablation.arms.nobody]
samples = {{ drop_fields = ["user.user_id"] }}
[ablation.arms.items]
features = ["item_knowledge"]
text = {{ kind = "linear", similarities = false }}
samples = {{ text_dimensions = 4 }}
"""


def world() -> Snapshot:
    """Texts tell what people like; nobody meets an item twice, so that strangers' vectors tell nothing."""
    planted = make_world(users=50, items=300, rows=2600)
    once = planted.dataset.interactions.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    return replace(planted, dataset=replace(planted.dataset, interactions=once))


def publish(root: Path, planted: Snapshot) -> None:
    """Store the data and the texts under `root`."""
    publish_dataset(root, Ingested(planted.dataset, pl.DataFrame(schema=QUARANTINE), 0, "data", {}, ()))
    for feature in planted.features.values():
        places = feature.rows.select("text_hash", "vector_row").sort("vector_row")
        vectors = pl.Series(feature.vectors[places["vector_row"].to_numpy()], dtype=pl.Array(pl.Float32, DIM))
        publish_features(
            root,
            feature.name,
            entity=feature.entity,
            rows=feature.rows.drop("vector_row"),
            rejected=pl.DataFrame(schema=REJECTED),
            vectors=places.select("text_hash", vector=vectors),
            encoder=feature.encoder,
            lineage={},
        )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the planted world."""
    root = tmp_path_factory.mktemp("world") / "root"
    publish(root, world())
    return root


@pytest.fixture(scope="module")
def studied(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data root in which the study of sample efficiency was run once, and what the command said."""
    folder = tmp_path_factory.mktemp("studied")
    said = command(configured(folder, stored), "sample_efficiency", "--workers", "1")
    return folder / "root", said.output


@pytest.fixture
def configuration(tmp_path: Path, stored: Path) -> Path:
    """The TOML of a run over a copy of the planted world."""
    return configured(tmp_path, stored)


def configured(folder: Path, root: Path) -> Path:
    shutil.copytree(root, folder / "root")
    (folder / "study.toml").write_text(TOML.format(root=folder / "root"))
    return folder / "study.toml"


def command(configuration: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["study", *arguments, "--config", str(configuration)], catch_exceptions=False)


def done_line(output: str) -> str:
    *_, done, page = output.splitlines()
    assert page.startswith("The page: ")
    assert "<title>" in Path(page.removeprefix("The page: ")).read_text()
    return done


def test_a_study_tells_text_from_its_controls(studied: tuple[Path, str]) -> None:
    root, said = studied
    assert [problem for problem in inspect(root)[1] if "/features/" not in problem] == []  # those have made-up texts
    results = query(root, "SELECT * FROM study_sample_efficiency")
    claims = query(root, "SELECT * FROM study_sample_efficiency_claims")
    everything = claims.filter(slice="all")

    assert done_line(said).startswith("16 parts, 16 of them computed now, in ")
    beats = everything.filter(claim="text beats base")
    assert beats["verdict"].to_list() == ["holds", "holds"]
    controls = everything.filter(claim="control does nothing")
    assert set(controls["arm"]) == {"permuted", "random"}
    assert controls["difference"].max() < 0.1 < beats["difference"].min()  # type: ignore[operator]
    assert "does not hold" not in controls["verdict"]
    assert set(everything.filter(claim="arm beats arm", arm="text")["verdict"]) == {"holds"}
    assert everything.filter(claim="text at x % equals all rows without")["verdict"].to_list() == ["holds", "holds"]
    assert claims["controlled"].all()
    assert "uncontrolled" not in said
    assert "deepfm: 50 % of the rows with text equal all rows without: 2 times fewer" in said
    assert "untuned: every model has the values as configured" in said
    assert "every row's texts are strictly older than the row" in said

    n_train = results.filter(fraction=1.0)["train_rows"].max()
    assert set(results.filter(fraction=0.5)["train_rows"]) == {round(n_train / 2)}  # type: ignore[operator]
    for bins in ("item_rows:", "history:"):
        parts = results.filter(pl.col("slice").str.starts_with(bins), metric="auc", arm="base", seed=0, fraction=1.0)
        assert parts["rows"].sum() == results.filter(slice="all")["rows"].max()
    calibration = query(root, "SELECT * FROM study_sample_efficiency_calibration WHERE arm = 'text'")
    assert (calibration["predicted"].is_between(0, 1).all(), calibration["bin"].max()) == (True, 10)


def test_a_study_is_done_once_and_goes_on_where_it_was_killed(studied: tuple[Path, str], tmp_path: Path) -> None:
    path, first = configured(tmp_path, studied[0]), studied[1]
    root = tmp_path / "root"
    again = command(path, "sample_efficiency").output
    assert done_line(again).startswith("16 parts, 0 of them computed now, in ")
    assert again.splitlines()[:-2] == first.splitlines()[:-2]
    assert len(list((root / "studies" / "sample_efficiency").iterdir())) == 1

    whole = query(root, "SELECT * FROM study_sample_efficiency")
    parts = sorted((root / "study_parts").iterdir())
    for part in parts[::4]:
        shutil.rmtree(part)
    planned = command(path, "sample_efficiency", "--dry-run").output
    assert (len(parts), "16 fits, 12 of them stored; " in planned, "\nabout " in planned) == (16, True, True)
    assert len(list((root / "study_parts").iterdir())) == 12
    others = command(path, "sample_efficiency", "--dry-run", "--set", "train.epochs=4").output
    assert ("16 fits, 0 of them stored; " in others, "\nabout " in others) == (True, True)  # as fast as those before

    rest = command(path, "sample_efficiency", "--workers", "2").output  # in processes of their own
    assert done_line(rest).startswith("16 parts, 4 of them computed now, in ")
    ended = query(root, "SELECT * FROM study_sample_efficiency")
    assert ended.drop("value").equals(whole.drop("value"))
    assert (ended["value"] - whole["value"]).abs().max() < 1e-6  # type: ignore[operator]


def test_an_ablation_without_controls_says_so_first(configuration: Path) -> None:
    said = command(configuration, "ablation", "--workers", "1").output.splitlines()

    assert said[0].startswith("uncontrolled: deepfm: both beats base on 50 % of the rows: ")
    assert any(line.startswith("uncontrolled: deepfm: both beats items on 50 % of the rows: ") for line in said)
    assert "uncontrolled: items has not both a permuted and a random control beside it" in said
    claims = query(load_config(configuration).store.root, "SELECT * FROM study_ablation_claims")
    assert not claims.filter(pl.col("arm") != "base")["controlled"].any()
    assert set(claims.filter(arm="base")["against"]) == {"nobody"}
    assert set(claims["claim"]) == {"text beats base", "arm beats arm"}


def test_trials_are_chosen_by_validation_on_the_first_seed_and_cost_all_arms_the_same(configuration: Path) -> None:
    trial = (
        "sample_efficiency.trials.small={options={learning_rate=1e-6},text={l2=1e-3},train={epochs=1},fractions=[0.5]}"
    )
    fast = ["sample_efficiency.models=['lr']", "train.epochs=2", trial]
    sets = [part for override in fast for part in ("--set", override)]
    done = command(configuration, "sample_efficiency", "--workers", "1", *sets)
    run = load_config(configuration, fast)
    assert run.sample_efficiency is not None
    parts = Plan(run, "sample_efficiency", run.sample_efficiency, learning.snapshot(run)).parts

    tuned = "tuned: for each model and arm on seed 0 by validation AUC, of these trials: configured; small at 50 %"
    assert tuned in done.output
    assert len(parts) == 4 * 2 * 2
    for (_, _, fraction, seed), part in parts.items():
        tried = 2 if seed == 0 and fraction == 0.5 else 1
        assert (part.meta["trial"], len(part.meta["tried"])) == ("configured", tried)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sample_efficiency.models=['din']", r"reads model 'din', but \[models\] has: deepfm, lr"),
        ("sample_efficiency.arms.text.features=['plot']", r"reads feature set 'plot', but \[features\] has: "),
        ("sample_efficiency.arms.base.vectors='stored'", "always there"),
        ("sample_efficiency.arms.plain.vectors='random'", "needs features"),
        ("sample_efficiency.arms.text.samples={dimensions=3}", "unknown key 'dimensions'"),
        ("sample_efficiency.trials.t.options={width=3}", "unknown key 'width'; allowed are embedding_size"),
        ("sample_efficiency.trials.t.fractions=[0.3]", "is for the fraction 0.3, which is not studied"),
        ("sample_efficiency.trials.t.train={seed=3}", "no value to try"),
        ("sample_efficiency.trials.t.text={l2=-1}", "greater than or equal to 0"),
        ("sample_efficiency.fractions=[0.5, 0.5]", "holds a value twice"),
        ("sample_efficiency.fractions=[0.0]", "greater than 0"),
        ('sample_efficiency.arms."../x"={features=[]}', "cannot name anything stored"),
    ],
)
def test_a_wrong_study_is_refused_before_it_starts(configuration: Path, line: str, says: str) -> None:
    if "../x" in line:
        configuration.write_text(configuration.read_text() + '[sample_efficiency.arms."../x"]\n')
        line = "sample_efficiency.resamples=100"
    with pytest.raises(ConfigError, match=says):
        load_config(configuration, [line])


def test_no_section_is_nothing_to_study(configuration: Path) -> None:
    run = load_config(configuration).model_copy(update={"ablation": None})
    with pytest.raises(ConfigError, match=r"no section \[ablation\]"):
        study.study(run, "ablation")


def test_a_text_that_is_not_older_stops_the_study(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = learning.snapshot

    def leaky(run: object) -> Snapshot:
        """Every row finds the newest text of its user, whenever that was written."""
        taken = real(run)  # type: ignore[arg-type]
        feature = taken.features["user_preference"]
        newest = feature.current().select(user_id="entity_id", newest="vector_row")
        samples = taken.samples.join(newest, on="user_id", how="left", maintain_order="left")
        return replace(taken, samples=samples.with_columns(user_preference_row=pl.col("newest")).drop("newest"))

    monkeypatch.setattr(learning, "snapshot", leaky)
    with pytest.raises(StoreError, match=r"not older than the row.*user_preference: \d+ rows, the first with user_id"):
        study.study(load_config(configuration), "sample_efficiency")
