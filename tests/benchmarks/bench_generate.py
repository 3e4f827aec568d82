"""What does the pipeline cost beside vLLM? Tokens/s of `generate` over a bare `LLM.generate` of the same prompts.

Both have a process with the same model, arguments and environment; loading is timed in neither. They take turns on
prompts that neither has seen, so that what else the machine does meets both alike.

    python -m tests.benchmarks.bench_generate [--prompts 2000] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_features.engines import Engine, Request, vllm
from llm_features.engines._vllm_process import environment
from llm_features.generate import generate
from storage.cache import Cache
from storage.schema import TEXTS
from tests.benchmarks.random_llama import make, words

BARE = """
import json, sys, time
answers = sys.stdout
sys.stdout = sys.stderr
from vllm import LLM, SamplingParams
options = json.loads(sys.stdin.readline())
llm = LLM(**options)
for line in sys.stdin:
    prompts, max_tokens = json.loads(line)
    given = [{"prompt_token_ids": ids} for ids in prompts]
    started = time.perf_counter()
    found = llm.generate(given, SamplingParams(temperature=0, max_tokens=max_tokens), use_tqdm=False)
    seconds = time.perf_counter() - started
    texts = [answer.outputs[0].text for answer in found]
    n_tokens = sum(len(answer.outputs[0].token_ids) for answer in found)
    print(json.dumps([seconds, n_tokens, texts]), file=answers, flush=True)
"""


def bench(*, prompts: int = 2000, rounds: int = 3, max_tokens: int = 64, shard_size: int = 512) -> dict[str, float]:
    """Ratios of tokens/s, the median of the rounds; prints each round."""
    with tempfile.TemporaryDirectory() as folder:
        engine = vllm.Engine(vllm.Config(model=str(make(Path(folder) / "model")), dtype="bfloat16"))
        texts = Cache(Path(folder) / "texts", TEXTS, key="text_key")
        cpu = vllm._is_cpu_build()
        bare = subprocess.Popen(
            [sys.executable, "-c", BARE],
            env=environment(cpu=cpu, local=True, extra={}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert bare.stdin
        assert bare.stdout
        try:
            bare.stdin.write(json.dumps(engine._options(cpu=cpu)) + "\n")
            ratios, serial = [], []
            for turn in range(rounds + 1):
                asked = _requests(turn, prompts if turn else 50, max_tokens)
                tokens = engine.tokens()
                assert tokens
                ids = [tokens.encode(request.messages) for request in asked]
                if turn % 2 == 0:
                    ours = _ours(asked, engine, texts, shard_size)
                bare.stdin.write(json.dumps([ids, max_tokens]) + "\n")
                bare.stdin.flush()
                seconds, n_tokens, answers = json.loads(bare.stdout.readline())
                if turn % 2:
                    ours = _ours(asked, engine, texts, shard_size)
                if turn == 0:  # the first only warms up
                    continue
                theirs = n_tokens / seconds
                ratios.append(ours / theirs)
                same = sum(texts.fetch([r.key for r in asked])["text"].to_numpy() == answers) / len(asked)
                alone = _requests(100 + turn, 20, max_tokens)
                started = time.perf_counter()
                n_alone = sum(c.n_output_tokens for c in engine.generate(alone, in_flight=1))
                serial.append(ours / (n_alone / (time.perf_counter() - started)))
                print(
                    f"round {turn}: {len(ids)} prompts of {sum(map(len, ids)) / len(ids):.0f} tokens; "
                    f"generate {ours:,.0f} tokens/s, bare {theirs:,.0f}, ratio {ratios[-1]:.3f}; "
                    f"over one at a time {serial[-1]:.1f}; same text {same:.1%}",
                    flush=True,
                )
        finally:
            bare.kill()
            bare.wait()
            engine.close()
    return {"over_bare": statistics.median(ratios), "over_one_at_a_time": statistics.median(serial)}


def _ours(requests: list[Request], engine: Engine, texts: Cache, shard_size: int) -> float:
    summary = generate(requests, engine, texts, run_id="bench", shard_size=shard_size)
    assert summary.sent == summary.committed == len(requests)
    return summary.n_output_tokens / summary.seconds


def _requests(turn: int, n: int, max_tokens: int) -> list[Request]:
    system = {"role": "system", "content": words(0, 40)}
    users = [{"role": "user", "content": words(turn * 1_000_000 + i + 1, 70)} for i in range(n)]
    return [Request(f"{turn}-{i}", "", (system, user), max_tokens) for i, user in enumerate(users)]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--shard-size", type=int, default=512)
    found = bench(**vars(parser.parse_args()))
    print(f"tokens/s over a bare LLM.generate: {found['over_bare']:.3f} (at least 0.95)")
    print(f"tokens/s over one prompt at a time: {found['over_one_at_a_time']:.1f}")


if __name__ == "__main__":
    main()
