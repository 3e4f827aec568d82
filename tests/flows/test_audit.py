"""Every kind of leak, planted into a clean world, is found by its own check; in the clean world nothing is."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr_models.opinions import fit_usual
from ctr_models.runs import load_run, run_names
from ctr_models.text import fit_statistics
from ctr_models.vocabulary import fit_vocabulary
from flows import learning, steps
from flows.audit import audit
from flows.audits import Audited, findings
from flows.config import RunConfig
from llm_features import engines
from llm_features.build import prompts_cache
from llm_features.engines import Completion, Request
from llm_features.memorisation import item_rows
from storage.ingest import load_dataset
from storage.interactions import Dataset
from storage.schema import EARLIEST
from storage.snapshot import Snapshot
from tests.faults.commands import asked
from tests.flows.test_night import COMMAND, tiny

USER, ITEM = "user_preference", "item_knowledge"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A clean world: template texts, hashing encoder, one trained model and its controls."""
    arms = 'compare.arms=["without", "with", "permuted"]'
    config = tiny(tmp_path_factory.mktemp("audit"), "train.epochs=1", arms, users=50)[1]
    steps.ingest(config)
    for name in config.features:
        steps.generate(config, name)
    learning.train(config)
    return config


@pytest.fixture(scope="module")
def clean(config: RunConfig) -> Audited:
    """What is audited of it."""
    root = config.store.root
    taken, cache = learning.snapshot(config), prompts_cache(config.store.root)
    runs = {name: load_run(root, name) for name in run_names(root)}
    return Audited(taken, cache.fetch(sorted(cache.keys())), runs, time_split=True)


def test_the_clean_world_raises_no_alarm(config: RunConfig, clean: Audited) -> None:
    assert findings(clean) == []
    assert audit(config) == {"leaks": [], "runs": ["deepfm", "deepfm.permuted", "deepfm.without"], "not_audited": []}


def test_the_command_says_what_it_found_and_how_it_ends(config: RunConfig) -> None:
    path = config.store.root.parent / "tiny.toml"
    done = subprocess.run([*COMMAND, "audit", "-c", str(path)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "3 runs and all feature sets audited: 0 leaks" in done.stdout


# ------------------------------------------------------------------------------------------------ what is planted


def samples(audited: Audited, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Audited:
    old = audited.snapshot
    return replace(audited, snapshot=Snapshot(old.dataset, change(old.samples), old.features, old.lineage))


def rows(audited: Audited, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Audited:
    """Other rows of a feature set, under the samples as they were joined."""
    old = audited.snapshot
    feature = replace(old.features[name], rows=change(old.features[name].rows))
    return replace(audited, snapshot=replace(old, features={**old.features, name: feature}))


def tables(audited: Audited, **changed: pl.DataFrame) -> Audited:
    old = audited.snapshot
    return replace(audited, snapshot=replace(old, dataset=replace(old.dataset, **changed)))


def prompt(audited: Audited, change: Callable[[str, dict], str], *, of: str = USER) -> Audited:
    """Another last message in the prompts of a feature set; `change` gets it and the row it is of."""
    about = {row["source_hash"]: row for row in audited.snapshot.features[of].rows.iter_rows(named=True)}
    said = []
    for source, messages in audited.prompts.select("source_hash", "messages").iter_rows():
        messages = json.loads(messages)
        if source in about:
            messages[-1]["content"] = change(messages[-1]["content"], about[source])
        said.append(json.dumps(messages))
    return replace(audited, prompts=audited.prompts.with_columns(messages=pl.Series(said)))


def joined_newest(audited: Audited) -> Audited:
    newest = audited.snapshot.features[USER].current().select(user_id="entity_id", newest="vector_row")
    return samples(
        audited,
        lambda s: (
            s.join(newest, on="user_id", how="left", maintain_order="left")
            .with_columns(pl.col("newest").fill_null(-1).cast(pl.Int32).alias(f"{USER}_row"))
            .drop("newest")
        ),
    )


def at_label_instant(audited: Audited) -> Audited:
    """The texts of some users are as of the instant of a label that is joined to them."""
    first = audited.samples.filter(pl.col(f"{USER}_row") >= 0).head(1)
    user, when, row = first.select("user_id", "timestamp", f"{USER}_row").row(0)
    mine = (pl.col("entity_id") == user) & (pl.col("vector_row") == row)
    return rows(audited, USER, lambda r: r.with_columns(as_of=pl.when(mine).then(when).otherwise("as_of")))


def known_at(audited: Audited) -> Audited:
    """Texts had to exist before the label; they were all made today."""
    old = audited.snapshot
    rules = {**old.lineage["labels"], "known_at": True}  # type: ignore[dict-item]
    return replace(audited, snapshot=replace(old, lineage={**old.lineage, "labels": rules}))


def target_in_prompt(audited: Audited) -> Audited:
    return prompt(audited, lambda said, row: f"{said}\nNext: {later(audited, row)}")


def future_line(audited: Audited) -> Audited:
    return prompt(audited, lambda said, row: f"{said}\n- {later(audited, row)}: rated 5 of 5")


def later(audited: Audited, row: dict) -> str:
    life = audited.lives[row["entity_id"]]
    titles = [t for when, t in zip(life.times, life.titles, strict=True) if when > row["as_of"]]
    return titles[0] if titles else "nothing"


def rated_again(audited: Audited) -> Audited:
    """Users rate their first item again, at the end and otherwise, and prompts show that rating."""
    data = audited.dataset.interactions
    first = data.unique("user_id", keep="first", maintain_order=True)
    last = data["timestamp"].max()
    again = first.with_columns(
        timestamp=pl.lit(last + 1, pl.Int64), rating=6 - pl.col("rating"), source_row=pl.col("source_row") + 10**6
    ).filter(pl.col("rating") != 3)
    audited = tables(audited, interactions=pl.concat([data, again]))
    titles = dict(audited.dataset.items.select("item_id", "title").iter_rows())
    new = {
        user: (titles[item], rating) for user, item, rating in again.select("user_id", "item_id", "rating").iter_rows()
    }

    def change(said: str, row: dict) -> str:
        title, rating = new.get(row["entity_id"], ("", 0))
        old = f"- {title}: rated {6 - rating:g} of 5"
        return said.replace(old, f"- {title}: rated {rating:g} of 5")

    return prompt(audited, change)


def twin(audited: Audited) -> Audited:
    data = audited.dataset
    user = audited.samples.filter(pl.col("split") == "test")["user_id"][0]
    rows = data.interactions.filter(user_id=user).with_columns(
        user_id=pl.lit("twin"), source_row=pl.col("source_row") + 10**6
    )
    people = data.users.filter(user_id=user).with_columns(user_id=pl.lit("twin"))
    return tables(audited, interactions=pl.concat([data.interactions, rows]), users=pl.concat([data.users, people]))


def column(audited: Audited, side: str, made: pl.Expr) -> Audited:
    table = audited.dataset.users if side == "user" else audited.dataset.items
    numbers = audited.dataset.interactions.group_by(f"{side}_id").agg(made.cast(pl.Float64).alias("score"))
    table = table.join(numbers, on=f"{side}_id", how="left", maintain_order="left")
    return tables(audited, **{f"{side}s": table})


def run_with(audited: Audited, **changed: object) -> Audited:
    return replace(audited, runs={"deepfm": replace(audited.runs["deepfm"], **changed)})  # type: ignore[arg-type]


def everything_trains(audited: Audited) -> pl.DataFrame:
    return audited.samples.with_columns(split=pl.lit("train"))


def fitted_on_everything(audited: Audited, *, mean: bool) -> Audited:
    sets = [audited.snapshot.features[s.name] for s in audited.runs["deepfm"].statistics]
    rows = audited.samples.with_columns(
        pl.Series(f"{s.name}_row", np.arange(len(audited.samples)) % len(s.vectors), pl.Int32) for s in sets
    )
    everything = fit_statistics(sets, rows, dimensions=audited.runs["deepfm"].config.samples.text_dimensions)
    own = audited.runs["deepfm"].statistics
    part = "mean" if mean else "components"
    return run_with(
        audited, statistics=tuple(replace(o, **{part: getattr(e, part)}) for o, e in zip(own, everything, strict=True))
    )


def vocabulary_of(audited: Audited, train: pl.DataFrame) -> Audited:
    return run_with(audited, vocabulary=fit_vocabulary(audited.dataset, train))


def year_edges(audited: Audited) -> Audited:
    """A number's buckets are cut on everything."""
    items = audited.dataset.items
    audited = tables(audited, items=items.with_columns(year=pl.int_range(pl.len(), dtype=pl.Int64) * 7))
    honest = fit_vocabulary(audited.dataset, audited.train)
    field = honest.named("item.year")
    fields = tuple(replace(f, edges=(*f.edges, 10.0**6)) if f is field else f for f in honest.fields)
    return run_with(audited, vocabulary=replace(honest, fields=fields))


def shuffled_split(samples_: pl.DataFrame) -> pl.DataFrame:
    return samples_.with_columns(split=pl.col("split").shuffle(seed=1))


def validation_after_test(samples_: pl.DataFrame) -> pl.DataFrame:
    swap = {"validation": "test", "test": "validation"}
    return samples_.with_columns(split=pl.col("split").replace(swap))


def doubled(samples_: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([samples_, samples_.filter(split="test").head(3).with_columns(split=pl.lit("train"))])


def shifted(name: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda s: s.with_columns(pl.col(name).shift(-1).over("user_id").fill_null(pl.col(name)).alias(name))


def profile(row_text: str) -> Callable[[Audited], Audited]:
    """Every user's text says all titles the user ever came to."""

    def plant(audited: Audited) -> Audited:
        every = {user: ", ".join(life.titles) for user, life in audited.lives.items()}
        said = pl.col("entity_id").replace_strict(every)
        return rows(audited, USER, lambda r: r.with_columns(text=pl.lit(row_text) + said))

    return plant


LEAKS: dict[str, tuple[str, Callable[[Audited], Audited]]] = {
    "the target's title in its own prompt": ("prompt_shows_a_later_title", target_in_prompt),
    "a future line in a history": ("prompt_shows_a_later_title", future_line),
    "a future rating in a history": ("prompt_shows_a_later_rating", rated_again),
    "a longer history than claimed": (
        "prompt_shows_more_than_its_history",
        lambda a: rows(a, USER, lambda r: r.with_columns(n_history=pl.lit(2, pl.Int32))),
    ),
    "the user's id in the prompt": (
        "prompt_names_a_user",
        lambda a: prompt(a, lambda said, row: f"User {row['entity_id']}. {said}"),
    ),
    "popularity in an item's prompt": (
        "item_prompt_with_numbers_of_use",
        lambda a: prompt(a, lambda said, row: f"{said}\npopularity: 17", of=ITEM),
    ),
    "a profile made from all ratings, by its words": ("text_names_the_future", profile("Likes ")),
    "a profile made from all ratings, by its words, without the years": (
        "text_names_the_future",
        lambda a: tables(
            profile("Likes ")(a), items=a.dataset.items.with_columns(title=pl.format("{} (1995)", "title"))
        ),
    ),
    "a profile written once, dated back to every checkpoint": (
        "text_that_never_changes",
        lambda a: rows(a, USER, lambda r: r.with_columns(pl.col("text").last().over("entity_id"))),
    ),
    "a profile made from all ratings, as if static": (
        "user_text_out_of_time",
        lambda a: rows(a, USER, lambda r: r.with_columns(as_of=pl.lit(EARLIEST, pl.Int64))),
    ),
    "an item text written from ratings, as if static": (
        "item_text_with_a_history",
        lambda a: rows(a, ITEM, lambda r: r.with_columns(n_history=pl.lit(9, pl.Int32))),
    ),
    "a text stamped earlier than what it saw": (
        "as_of_before_what_was_seen",
        lambda a: rows(a, USER, lambda r: r.with_columns(as_of=pl.col("as_of") - 86_400)),
    ),
    "a text from more than there was": (
        "as_of_before_what_was_seen",
        lambda a: rows(a, USER, lambda r: r.with_columns(n_history=pl.lit(10_000, pl.Int32))),
    ),
    "a backdated text": (
        "made_before_its_data",
        lambda a: rows(a, USER, lambda r: r.with_columns(created_at=pl.col("as_of") - 1)),
    ),
    "two texts for one time": ("two_texts_for_one_time", lambda a: rows(a, USER, lambda r: pl.concat([r, r.head(1)]))),
    "a row stamped at the very label instant": ("text_of_the_label_instant", at_label_instant),
    "a join on the newest": ("text_from_the_future", joined_newest),
    "a join on the newest, by the history": ("text_that_saw_more_than_the_history", joined_newest),
    "a backfilled text used before it was made": ("text_used_before_it_was_made", known_at),
    "the text of the user's next row": ("text_that_is_not_the_newest", lambda a: samples(a, shifted(f"{USER}_row"))),
    "everybody has the same text": (
        "text_of_somebody_else",
        lambda a: samples(a, lambda s: s.with_columns(pl.lit(0, pl.Int32).alias(f"{USER}_row"))),
    ),
    "the label's own row in its history": (
        "history_that_holds_its_label",
        lambda a: samples(a, lambda s: s.with_columns(pl.col("n_before") + 1)),
    ),
    "the label of the user's next row": ("label_of_another_row", lambda a: samples(a, shifted("label"))),
    "duplicate rows across the split": ("row_in_two_parts", lambda a: samples(a, doubled)),
    "a user under two names": ("user_under_two_names", twin),
    "a random split": ("training_row_after_a_judging_row", lambda a: samples(a, shuffled_split)),
    "a random split, by the users' own rows": (
        "users_training_row_after_own_test_row",
        lambda a: samples(replace(a, time_split=False), shuffled_split),
    ),
    "validation after the test": ("test_row_before_a_validation_row", lambda a: samples(a, validation_after_test)),
    "test rows in an item's popularity": ("column_made_from_all_rows", lambda a: column(a, "item", pl.len())),
    "test rows in an item's mean rating": (
        "column_made_from_all_rows",
        lambda a: column(a, "item", pl.col("rating").mean()),
    ),
    "test rows in a user's likes": (
        "column_made_from_all_rows",
        lambda a: column(a, "user", (pl.col("rating") > 3).sum()),
    ),
    "a vocabulary of everything": ("vocabulary_of_everything", lambda a: vocabulary_of(a, everything_trains(a))),
    "buckets of everything": ("vocabulary_of_everything", year_edges),
    "usual ratings of everything": (
        "usual_ratings_of_everything",
        lambda a: run_with(
            a, vocabulary=replace(a.runs["deepfm"].vocabulary, usual=fit_usual(a.dataset, everything_trains(a)))
        ),
    ),
    "a mean of everything": ("text_mean_of_everything", lambda a: fitted_on_everything(a, mean=True)),
    "a whitening of everything": ("whitening_of_everything", lambda a: fitted_on_everything(a, mean=False)),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found(leak: str, clean: Audited) -> None:
    check, plant = LEAKS[leak]
    found = findings(plant(clean))
    assert check in {line.split(":")[0] for line in found}, found


def test_an_id_within_a_title_is_no_id(clean: Audited) -> None:
    """User 1996 has seen a film of 1996, and is no more named by that than by its other titles."""
    user = clean.snapshot.features[USER].rows["entity_id"][0]
    title = clean.lives[user].titles[0]
    again = {title: f"{title} ({user})"}
    film = tables(clean, items=clean.dataset.items.with_columns(pl.col("title").replace(again)))
    film = prompt(film, lambda said, row: said.replace(f"- {title}", f"- {again[title]}"))

    assert any(f"({user})" in said for said in film.messages.values())
    assert [line for line in findings(film) if line.startswith("prompt_names_a_user")] == []
    named = prompt(film, lambda said, row: f"{said} User {user}." if row["entity_id"] == user else said)
    assert [line for line in findings(named) if line.startswith("prompt_names_a_user")]


def test_every_check_finds_something_planted() -> None:
    from flows.audits import fitted, joins, splits, texts

    assert {check.__name__ for m in (fitted, joins, splits, texts) for check in m.CHECKS} == {
        c for c, _ in LEAKS.values()
    }


def test_planting_leaves_the_clean_world_clean(clean: Audited, config: RunConfig) -> None:
    """And known-at texts that were made in time are no leak."""
    assert findings(clean) == []
    in_time = rows(known_at(clean), USER, lambda r: r.with_columns(created_at=pl.col("as_of")))
    in_time = rows(in_time, ITEM, lambda r: r.with_columns(created_at=pl.lit(0, pl.Int64)))
    assert findings(in_time) == []
    assert isinstance(clean.dataset, Dataset)
    assert Path(config.store.root).is_dir()


# ------------------------------------------------------------------------------------------------ what a model knows


def test_the_command_asks_an_engine_for_rows_and_says_what_it_knows(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(config.store.root.parent / "tiny.toml")
    knows = {row.shown: row.rest for row in item_rows(load_dataset(config.store.root), limit=60, seed=0)}
    closed = []

    class Model(engines.Engine):
        identity: Mapping[str, object] = {"engine": "fake"}

        def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
            for request in requests:
                shown = request.messages[-1]["content"].split("\n\n", 1)[1]
                yield Completion(request.key, knows.get(shown, "1::5"), "stop")

        def close(self) -> None:
            closed.append(True)

    assert "'template' is no language model" in str(asked(capsys, "audit", "--memorisation", "rule", "-c", path)[0])
    assert "[engines] has: rule" in str(asked(capsys, "audit", "--memorisation", "gpt", "-c", path)[0])
    monkeypatch.setattr("flows.audit.open_engine", lambda config, name: Model())
    status, said = asked(capsys, "audit", "--memorisation", "rule", "--rows", "60", "-c", path)
    items, ratings = said.splitlines()
    assert (status, closed) == (0, [True])
    assert re.fullmatch(
        r"items: 60 of 60 rows completed exactly, \d\.\d by chance \(p = 0\.001\): known by heart", items
    )
    assert ratings.endswith(": not known")
