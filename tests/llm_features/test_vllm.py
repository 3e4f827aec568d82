"""The vLLM engine: the process around it with a stand-in for vLLM, then the real one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_features.engines import Completion, EngineDied, Request, vllm
from llm_features.engines.vllm import Config, Engine
from llm_features.generate import generate
from storage.cache import Cache
from storage.errors import ConfigError, GenerationError
from storage.schema import TEXTS
from tests.benchmarks.random_llama import make, words

REPOSITORY = Path(__file__).resolve().parents[2]

STAND_IN = """
import os, signal, sys, time, types
print("a line that is no message")
class Tokenizer:
    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(map(str, ids))
class Core:
    model_config = types.SimpleNamespace(max_model_len=64)
    def __init__(self):
        self.out = {}
    def add_request(self, number, prompt, params):
        if 404 in prompt["ids"]:
            raise ValueError("no such token")
        self.out[number] = (prompt["ids"], params)
    def has_unfinished_requests(self):
        return bool(self.out)
    def step(self):
        time.sleep(float(os.environ.get("STEP", "0")))
        number, (ids, params) = self.out.popitem()
        if 666 in ids:
            print("the last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        reason = "length" if ids[0] == 7 else "stop"
        answer = types.SimpleNamespace(token_ids=[*ids[:2], params.seed or 0], finish_reason=reason)
        return [types.SimpleNamespace(finished=True, request_id=number, outputs=[answer])]
class LLM:
    def __init__(self, **options):
        if "FAIL" in os.environ:
            raise RuntimeError("not enough memory")
        if "DIE" in os.environ:
            os._exit(3)
        self.llm_engine = Core()
        print(options, flush=True)
    def get_tokenizer(self):
        return Tokenizer()
class SamplingParams(types.SimpleNamespace):
    pass
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that nobody trained."""
    return make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def stand_in(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Make engines whose process finds the stand-in where it looks for vLLM."""
    package = tmp_path / "site" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (package / "inputs.py").write_text("def tokens_input(ids):\n    return {'ids': ids}\n")
    (package / "sampling_params.py").write_text("class RequestOutputKind:\n    FINAL_ONLY = 2\n")
    monkeypatch.setattr(vllm, "_is_installed", lambda: True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engines = []

    def start(env: dict[str, str] | None = None, **options: object) -> Engine:
        path = os.pathsep.join([str(package.parent), str(REPOSITORY)])
        engines.append(Engine(Config(model=str(model), env={"PYTHONPATH": path, **(env or {})}, **options)))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
    assert list(tmp_path.glob("nightshift-vllm-*")) == []


def ask(key: str, *ids: int, max_tokens: int = 5) -> Request:
    return Request(key, key, ({"role": "user", "content": key},), max_tokens, token_ids=ids)


# ----------------------------------------------------------------------------------------- with the stand-in


def test_answers_come_with_their_numbers(stand_in: Callable[..., Engine]) -> None:
    """The token that ends an answer is counted and not shown; an answer that was cut off ends with none."""
    engine = stand_in()

    found = {c.key: c for c in engine.generate([ask("a", 1, 2, 3), ask("b", 7, 8)], in_flight=1)}

    assert Completion("a", "1 2", "stop", 3, 3) == found["a"]
    assert Completion("b", "7 8 0", "length", 2, 3) == found["b"]
    again = list(engine.generate([ask("c", 7)], in_flight=5))
    assert [Completion("c", "7 0", "length", 1, 2)] == again


def test_bad_requests_fail_alone(stand_in: Callable[..., Engine]) -> None:
    """One that is too long is never sent; one that vLLM refuses ends no other."""
    requests = [ask("long", *[1] * 60), ask("bad", 404), ask("good", 1), ask("just fits", *[1] * 59)]

    found = {c.key: c for c in stand_in(max_model_len=64).generate(requests, in_flight=9)}

    assert sorted(found) == ["bad", "good", "just fits", "long"]
    assert Completion("bad", "ValueError: no such token", "error", 1, 0) == found["bad"]
    assert Completion("long", "a prompt of 60 and an answer of 5 tokens exceed 64", "error", 60) == found["long"]
    assert [found["good"].finish_reason, found["just fits"].finish_reason] == ["stop", "stop"]


def test_a_death_names_what_is_unfinished(stand_in: Callable[..., Engine]) -> None:
    """And how the process ended, and its last words; the next call starts a new one."""
    engine = stand_in()
    requests = [ask("a", 1), ask("b", 666), ask("c", 2), ask("d", 3)]
    came: list[str] = []

    with pytest.raises(EngineDied, match=r"(?s)killed by SIGKILL.*the last words") as died:
        came.extend(c.key for c in engine.generate(requests, in_flight=3))

    assert {"b"} <= set(died.value.unfinished) <= {"a", "b", "c", "d"} - set(came)
    assert len(died.value.unfinished) <= 3
    assert [c.key for c in engine.generate([ask("e", 1)], in_flight=3)] == ["e"]


def test_a_killer_is_set_aside(stand_in: Callable[..., Engine], tmp_path: Path) -> None:
    """The whole way: a process that dies of one prompt, and a night that ends well."""
    texts = Cache(tmp_path / "texts", TEXTS, key="text_key")
    requests = [ask(f"k{i}", 666 if i == 5 else 1) for i in range(20)]

    summary = generate(requests, stand_in(), texts, run_id="r", shard_size=8)

    assert (summary.committed, summary.set_aside, summary.errors) == (20, 1, 0)
    assert texts.fetch(["k5"])["finish_reason"].to_list() == ["set_aside"]


def test_leaving_early_leaves_no_stale_answers(stand_in: Callable[..., Engine]) -> None:
    """Who comes next gets only what they asked for."""
    engine = stand_in()
    first = engine.generate([ask(f"a{i}", i) for i in range(1, 6)], in_flight=5)
    next(first)
    first.close()

    assert [c.key for c in engine.generate([ask("b", 1)], in_flight=1)] == ["b"]


@pytest.mark.parametrize(
    ("env", "message"),
    [({"FAIL": "1"}, "cannot start: RuntimeError: not enough memory"), ({"DIE": "1"}, r"cannot start.*exit code 3")],
)
def test_an_engine_that_cannot_start(env: dict[str, str], message: str, stand_in: Callable[..., Engine]) -> None:
    """Is no EngineDied: nobody tries it again."""
    with pytest.raises(GenerationError, match=message) as error:
        list(stand_in(env).generate([ask("a", 1)], in_flight=1))

    assert not isinstance(error.value, EngineDied)


def test_seeds(stand_in: Callable[..., Engine]) -> None:
    """Each prompt draws with its own, the same every night; other seeds are other engines, but not where none draws."""
    requests = [ask("a", 7), ask("b", 7)]
    one, other = (stand_in(temperature=1.0, seed=seed) for seed in (1, 2))

    first, again = ({c.key: c.text for c in one.generate(requests, in_flight=2)} for _ in range(2))

    assert first == again
    assert first["a"] != first["b"]
    assert first != {c.key: c.text for c in other.generate(requests, in_flight=2)}
    assert one.identity != other.identity
    assert stand_in(seed=1).identity == stand_in(seed=2).identity


def test_the_process_ends_with_ours(stand_in: Callable[..., Engine], model: Path, tmp_path: Path) -> None:
    """Even where ours is killed."""
    program = f"""
from llm_features.engines import Request, vllm
vllm._is_installed = lambda: True
engine = vllm.Engine(vllm.Config.model_validate_json({stand_in(env={"STEP": "60"})._config.model_dump_json()!r}))
requests = [Request("a", "a", ({{"role": "user", "content": "a"}},), 5, token_ids=(404,)),
            Request("b", "b", ({{"role": "user", "content": "b"}},), 5, token_ids=(1,))]
for completion in engine.generate(requests, in_flight=2):
    print(engine._worker._process.pid, flush=True)
"""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "t")}
    (tmp_path / "t").mkdir()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=env) as ours:
        assert ours.stdout
        pid = int(ours.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        ours.send_signal(signal.SIGKILL)
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or ") Z " in state.read_text():
            return
        time.sleep(0.05)
    pytest.fail("vLLM's process still runs after ours was killed")


# -------------------------------------------------------------------------------------- what the model is


def test_identity_is_of_the_content(model: Path, tmp_path: Path) -> None:
    """A moved folder is the same model; a changed file, chat template or decoding parameter is another."""
    there = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(model, there)
    first = dict(Engine(Config(model=str(model))).identity)
    assert first == dict(Engine(Config(model=str(there))).identity)
    assert first["model"] == "tiny"
    assert str(tmp_path) not in json.dumps(first)

    kinds = [{"temperature": 0.7}, {"dtype": "float32"}, {"repetition_penalty": 1.1}]
    others = [dict(Engine(Config.model_validate({"model": str(model), **kind})).identity) for kind in kinds]
    (there / "chat_template.jinja").write_text((there / "chat_template.jinja").read_text().replace("assistant", "a"))
    others.append(dict(Engine(Config(model=str(there))).identity))
    assert len({json.dumps(identity) for identity in [first, *others]}) == 5
    assert first == dict(Engine(Config(model=str(model), max_num_seqs=8, kv_cache_gib=2)).identity)


def test_the_length_is_what_the_model_holds(model: Path) -> None:
    """Or less where a person says so."""
    assert Engine(Config(model=str(model))).max_model_len == 1024
    assert Engine(Config(model=str(model), max_model_len=512)).max_model_len == 512


@pytest.mark.parametrize("name", ["/no/such/model", "./nowhere", "~/nothing-here", "a/b/c"])
def test_a_path_that_is_not_there(name: str) -> None:
    """Named at once, and not looked up on the hub."""
    with pytest.raises(ConfigError, match="is not a folder"):
        _ = Engine(Config(model=name)).identity


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """No config.json, no model."""
    with pytest.raises(ConfigError, match=r"no config\.json"):
        _ = Engine(Config(model=str(tmp_path))).max_model_len


def test_a_name_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline, or a typing error: the name is said."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="'nobody/nothing' is neither a folder nor found"):
        _ = Engine(Config(model="nobody/nothing")).identity


def test_without_vllm(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setattr(vllm, "_is_installed", lambda: False)
    with pytest.raises(ConfigError, match="not installed"):
        list(Engine(Config(model=str(model))).generate([ask("a", 1)], in_flight=1))


# ------------------------------------------------------------------------------------------------- real vLLM


@pytest.fixture(scope="session")
def real(model: Path) -> Iterator[Engine]:
    """A real engine on this machine."""
    if not vllm._is_installed():
        pytest.skip("vLLM is not installed")
    engine = Engine(Config(model=str(model), dtype="bfloat16"))
    yield engine
    engine.close()


def prompts(n: int, max_tokens: int = 8) -> list[Request]:
    system = {"role": "system", "content": words(0, 20)}
    users = [{"role": "user", "content": words(i, 9)} for i in range(n)]
    return [Request(f"k{i}", f"e{i}", (system, user), max_tokens) for i, user in enumerate(users)]


@pytest.mark.vllm
def test_real_answers(real: Engine) -> None:
    """Every prompt once, cut off where it must be, the same on the second night; one bad request ends no other."""
    requests = [*prompts(40), ask("no such token", 10**6)]

    first = {c.key: c for c in real.generate(requests, in_flight=16)}
    second = {c.key: c for c in real.generate(requests[::-1], in_flight=7)}

    assert {r.key for r in requests} == first.keys()
    assert first["no such token"].finish_reason == "error"
    good = [first[f"k{i}"] for i in range(40)]
    assert {"length"} == {c.finish_reason for c in good}
    assert {8} == {c.n_output_tokens for c in good}
    tokens = real.tokens()
    assert tokens
    assert [tokens.count(r.messages) for r in requests[:40]] == [c.n_prompt_tokens for c in good]
    assert sum(first[key].text == second[key].text for key in first) >= 39  # batches differ, and so do near ties


@pytest.mark.vllm
def test_real_answers_end(model: Path) -> None:
    """An answer that the model ends shows no control token."""
    engine = Engine(Config(model=str(model), dtype="bfloat16", temperature=2.0))
    try:
        found = list(engine.generate(prompts(200, max_tokens=60), in_flight=200))
    finally:
        engine.close()

    ended = [c for c in found if c.finish_reason == "stop"]
    assert 1 <= len(ended) < 200
    assert all("<|im_end|>" not in c.text and c.n_output_tokens <= 60 for c in found)


@pytest.mark.vllm
def test_a_real_process_that_is_killed_is_started_again(real: Engine, tmp_path: Path) -> None:
    """What came is kept and the rest completes."""
    texts = Cache(tmp_path / "texts", TEXTS, key="text_key")

    def kill_once(done: int, to_do: int) -> None:
        if done == 20:
            assert real._worker
            os.killpg(real._worker._process.pid, signal.SIGKILL)

    summary = generate(prompts(100, max_tokens=20), real, texts, run_id="r", shard_size=16, on_progress=kill_once)

    assert (summary.sent, summary.committed, summary.deaths, summary.set_aside) == (100, 100, 1, 0)


@pytest.mark.vllm
def test_damaged_weights_are_said(model: Path, tmp_path: Path) -> None:
    """Real vLLM's own words, in our error."""
    shutil.copytree(model, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(GenerationError, match="vLLM cannot start"):
        list(Engine(Config(model=str(tmp_path / "m"))).generate(prompts(1), in_flight=1))
