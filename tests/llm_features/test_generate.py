"""Sending prompts: what is exposed to a kill, what survives a dying engine, what is stored and what is only counted."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_features import engines
from llm_features import generate as module
from llm_features.engines import Completion, EngineDied, Request
from llm_features.generate import GenerationSummary, generate
from storage.cache import Cache
from storage.errors import GenerationError, StoreError
from storage.schema import TEXTS


class Fake(engines.Engine):
    """Answers out of order. It dies while it has a prompt of `killers`, once for those of `once`; others may fail."""

    def __init__(
        self,
        texts: Cache,
        *,
        killers: Collection[str] = (),
        once: Collection[str] = (),
        failing: Collection[str] = (),
        dead: bool = False,
    ) -> None:
        self.texts, self.killers, self.once, self.failing, self.dead = texts, killers, set(once), failing, dead
        self.random = random.Random(5)
        self.sent: list[str] = []
        self.starts = self.most_in_flight = self.most_exposed = 0

    @property
    def identity(self) -> Mapping[str, object]:
        return {"engine": "fake", "version": 1}

    def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
        self.starts += 1
        waiting, out = list(requests), []
        while waiting or out:
            while waiting and len(out) < in_flight:
                out.append(waiting.pop(0))
                self.sent.append(out[-1].key)
            self.most_in_flight = max(self.most_in_flight, len(out))
            self.most_exposed = max(self.most_exposed, len({*self.sent} - self.texts.keys() - {*self.failing, "hello"}))
            deadly = {r.key for r in out} & ({*self.killers} | self.once)
            if self.dead or (deadly and (len(out) > 3 or self.random.random() < 0.5 or len(out) == len(deadly))):
                self.once -= deadly
                raise EngineDied("killed by SIGSEGV", [r.key for r in out])
            request = out.pop(self.random.randrange(len(out)))
            if request.key in {*self.killers, *self.once}:
                out.append(request)
            elif request.key in self.failing:
                yield Completion(request.key, "too long", "error")
            else:
                yield Completion(request.key, f"about {request.entity_id}", "stop", 10, 3)


def ask(n: int) -> list[Request]:
    return [Request(f"k{i}", f"e{i}", ({"role": "user", "content": f"{i}?"},), max_tokens=5) for i in range(n)]


def cache(folder: Path) -> Cache:
    return Cache(folder / "texts", TEXTS, key="text_key")


@pytest.mark.parametrize("shard", [1, 2, 3, 4, 7, 64, 512])
def test_all_are_answered_and_no_more_than_a_shard_is_exposed(shard: int, tmp_path: Path) -> None:
    """Sent and not yet on the disk: never more than a shard, and the engine is kept busy within it."""
    texts, steps = cache(tmp_path), []
    engine = Fake(texts)

    summary = generate(
        ask(100),
        engine,
        texts,
        run_id="r",
        shard_size=shard,
        on_progress=lambda done, to_do: steps.append((done, to_do)),
    )

    assert {f"k{i}" for i in range(100)} == cache(tmp_path).keys()
    assert engine.most_exposed <= shard
    assert engine.most_in_flight >= min(100, 3 * shard // 4)
    assert [(i, 100) for i in range(1, 101)] == steps
    expected = GenerationSummary(100, 100, 0, 0, 0, 1000, 300, summary.seconds)
    assert expected == summary
    assert summary.seconds > 0


def test_a_row_says_what_wrote_it(tmp_path: Path) -> None:
    """Text, reason, token numbers, engine, time and run."""
    texts = cache(tmp_path)
    generate(ask(1), Fake(texts), texts, run_id="night-7")

    row = texts.fetch(["k0"]).row(0, named=True)
    created_at = row.pop("created_at")
    expected = {
        "text_key": "k0",
        "text": "about e0",
        "finish_reason": "stop",
        "n_prompt_tokens": 10,
        "n_output_tokens": 3,
        "engine": '{"engine": "fake", "version": 1}',
        "run_id": "night-7",
    }
    assert expected == row
    assert created_at > 1_700_000_000


def test_what_is_there_or_repeated_is_not_sent(tmp_path: Path) -> None:
    """A second call sends nothing; a repeated key is sent once."""
    texts = cache(tmp_path)
    engine = Fake(texts)
    requests = ask(10)

    generate(requests[:5] + requests[3:], engine, texts, run_id="r")
    summary = generate(requests, engine, texts, run_id="r")

    assert len(engine.sent) == 10
    assert (summary.sent, summary.committed, summary.n_output_tokens) == (0, 0, 0)


def test_failed_prompts_are_counted_and_sent_again_next_night(tmp_path: Path) -> None:
    """They are not stored, and do not stop the others."""
    texts = cache(tmp_path)
    first = generate(ask(50), Fake(texts, failing={"k3", "k40"}), texts, run_id="r", shard_size=8)
    engine = Fake(texts)
    second = generate(ask(50), engine, texts, run_id="r", shard_size=8)

    assert (first.sent, first.committed, first.errors) == (50, 48, 2)
    assert {"k3", "k40"} == set(engine.sent)
    assert (second.sent, second.committed, second.errors) == (2, 2, 0)


def test_an_engine_that_fails_everything_is_stopped(tmp_path: Path) -> None:
    """Not every prompt of a night is tried in vain."""
    texts = cache(tmp_path)
    engine = Fake(texts, failing={f"k{i}" for i in range(20, 1000)})

    with pytest.raises(GenerationError, match="64 prompts in a row failed; the last one: too long"):
        generate(ask(1000), engine, texts, run_id="r", shard_size=16)

    assert {f"k{i}" for i in range(20)} == texts.keys()
    assert len(engine.sent) < 150


# ---------------------------------------------------------------------------------------------- interruptions


def test_ctrl_c_stores_what_came(tmp_path: Path) -> None:
    """And is passed on."""
    texts = cache(tmp_path)

    def stop(done: int, to_do: int) -> None:
        if done == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(ask(100), Fake(texts), texts, run_id="r", shard_size=64, on_progress=stop)

    assert len(cache(tmp_path)) == 33


def test_slow_answers_are_stored_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part need not be full where answers take long."""
    texts, now = cache(tmp_path), [1e9]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    stored = []

    def later(done: int, to_do: int) -> None:
        stored.append(len(texts))
        now[0] += 25.0

    generate(ask(8), Fake(texts), texts, run_id="r", on_progress=later)

    assert stored == [0, 0, 0, 4, 4, 4, 4, 8]


def test_a_full_disk_is_said_once_and_the_engine_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own error comes through."""
    texts = cache(tmp_path)
    engine = Fake(texts)

    def full(rows: object) -> int:
        raise StoreError("cannot write: No space left on device")

    monkeypatch.setattr(texts, "append", full)
    with pytest.raises(StoreError, match="No space left"):
        generate(ask(100), engine, texts, run_id="r", shard_size=16)

    assert len(engine.sent) <= 16


NIGHT = """
import sys, time
from pathlib import Path
from tests.llm_features.test_generate import Fake, ask, cache
from llm_features.generate import generate

class Logged(Fake):
    def generate(self, requests, *, in_flight):
        with open("sent.log", "a") as log:
            for completion in super().generate(requests, in_flight=in_flight):
                log.writelines(key + "\\n" for key in self.sent)
                log.flush()
                self.sent.clear()
                time.sleep(0.002)
                yield completion

texts = cache(Path())
summary = generate(ask(400), Logged(texts), texts, run_id=sys.argv[1], shard_size=32)
"""


def test_kill_nine_repeats_a_shard_at_most(tmp_path: Path) -> None:
    """The same command again completes; what was on the disk is not sent again."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", NIGHT, "r"]
    with subprocess.Popen(command, cwd=tmp_path, env=env) as night:
        for _ in range(2000):
            if len(list(tmp_path.glob("texts/*.parquet"))) >= 5:
                break
            time.sleep(0.01)
        night.kill()
    kept = cache(tmp_path).keys()
    assert 40 <= len(kept) < 400

    subprocess.run(command, cwd=tmp_path, env=env, check=True)

    sent = Counter((tmp_path / "sent.log").read_text().split())
    assert cache(tmp_path).keys() == set(sent) == {f"k{i}" for i in range(400)}
    repeated = {key for key, times in sent.items() if times > 1}
    assert len(repeated) <= 32
    assert not repeated & kept


# --------------------------------------------------------------------------------------------- dying engines


def test_an_engine_that_dies_once_is_started_again(tmp_path: Path) -> None:
    """What had come is kept and nothing is set aside."""
    texts = cache(tmp_path)
    engine = Fake(texts, once={"k30"})

    summary = generate(ask(100), engine, texts, run_id="r", shard_size=32)

    assert (summary.sent, summary.committed, summary.set_aside, summary.deaths) == (100, 100, 0, 1)
    assert len(engine.sent) <= 100 + 32


def test_killers_are_set_aside_and_the_rest_completes(tmp_path: Path) -> None:
    """Found by bisection; stored as set aside, so that the next night leaves them alone."""
    texts = cache(tmp_path)
    engine = Fake(texts, killers={"k30", "k31", "k99"})

    summary = generate(ask(200), engine, texts, run_id="r", shard_size=64)

    rows = cache(tmp_path).fetch([f"k{i}" for i in range(200)])
    assert rows.filter(finish_reason="set_aside")["text_key"].to_list() == ["k30", "k31", "k99"]
    assert rows.filter(finish_reason="set_aside")["text"].to_list() == ["", "", ""]
    assert (summary.sent, summary.committed, summary.set_aside) == (200, 200, 3)
    assert engine.starts <= 60
    assert generate(ask(200), engine, texts, run_id="r").sent == 0


def test_one_prompt_alone_may_be_the_killer(tmp_path: Path) -> None:
    """The engine answers something else, so the prompt is to blame."""
    texts = cache(tmp_path)

    summary = generate(ask(1), Fake(texts, killers={"k0"}), texts, run_id="r")

    assert (summary.committed, summary.set_aside, summary.deaths) == (1, 1, 2)


def test_an_engine_that_dies_whatever_it_is_sent_blames_nobody(tmp_path: Path) -> None:
    """No prompt is set aside for an engine that is broken."""
    texts = cache(tmp_path)
    engine = Fake(texts, dead=True)

    with pytest.raises(GenerationError, match="dies whatever it is sent: killed by SIGSEGV"):
        generate(ask(300), engine, texts, run_id="r")

    assert len(texts) == 0
    assert engine.starts < 20


def test_deaths_are_bounded(tmp_path: Path) -> None:
    """An engine that many prompts kill is a matter for a person."""
    texts = cache(tmp_path)

    with pytest.raises(GenerationError, match="the engine died 64 times; the last time: killed by SIGSEGV"):
        generate(ask(300), Fake(texts, killers={f"k{i}" for i in range(0, 300, 2)}), texts, run_id="r")


def test_an_engine_that_cannot_start_is_said_at_once(tmp_path: Path) -> None:
    """No retries."""

    class Stuck(Fake):
        def generate(self, requests: Sequence[Request], *, in_flight: int) -> Iterator[Completion]:
            self.starts += 1
            raise GenerationError("vLLM cannot start: no such model")
            yield

    engine = Stuck(cache(tmp_path))
    with pytest.raises(GenerationError, match="no such model"):
        generate(ask(3), engine, cache(tmp_path), run_id="r")

    assert engine.starts == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(0, 60), shard=st.integers(1, 70))
def test_whatever_happens_every_prompt_has_one_end(
    data: st.DataObject, n: int, shard: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Answered, set aside, or counted as failed; killers are all set aside, and nobody else is."""
    keys = [f"k{i}" for i in range(n)]
    subset = st.sets(st.sampled_from(keys), max_size=3) if keys else st.just(set())
    killers, once, failing = (data.draw(subset, label=name) for name in ("killers", "once", "failing"))
    texts = cache(tmp_path_factory.mktemp("g"))
    engine = Fake(texts, killers=killers, once=once - killers, failing=failing - killers - once)

    summary = generate(ask(n), engine, texts, run_id="r", shard_size=shard)

    failed = failing - killers - once
    assert set(keys) - failed == texts.keys()
    rows = texts.fetch(sorted(texts.keys()))
    assert killers == set(rows.filter(finish_reason="set_aside")["text_key"])
    assert (n, len(failed), len(killers)) == (summary.sent, summary.errors, summary.set_aside)
    assert engine.most_exposed <= shard
