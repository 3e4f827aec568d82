"""How much faster are a night's texts encoded than by the library in float32, in batches of 32 in the order they come?

Real texts where the public data lies (item texts and user profiles by LLMs, plot overviews by people, mixed), made-up
texts of the same lengths elsewhere. Both take turns on the same texts.

    python -m tests.benchmarks.bench_encode [--texts 384] [--rounds 3]
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

import numpy as np

from llm_features.encoders.sentence_transformer import Config, Encoder
from tests.benchmarks.random_llama import words

FILES = ("item_knowledge_deepseek-chat.jsonl", "user_profiles_llama3-chatqa-8b.jsonl", "movie_overviews_tmdb.jsonl")


def bench(*, texts: int = 384, rounds: int = 3) -> dict[str, float]:
    """Speed over float32 in plain order by kind of text, the median of the rounds; prints each kind."""
    settled, measured = Encoder.settle(Config(device="cpu"), [text for some in _texts(24).values() for text in some])
    assert isinstance(settled, Config)
    print(f"number format: {settled.dtype}; {json.dumps(measured)}", flush=True)
    ours, theirs = Encoder(settled), Encoder(Config(dtype="float32", device="cpu"))
    found = {}
    for kind, some in _texts(texts).items():
        ratios, ours_a_second, cosine = [], [], 1.0
        for turn in range(rounds):
            part = some[turn * len(some) // rounds : (turn + 1) * len(some) // rounds]
            timed = [lambda part=part: ours.encode(part).vectors, lambda part=part: _plain(theirs, part)]
            seconds, vectors = [0.0, 0.0], [np.zeros(0), np.zeros(0)]
            for which in (0, 1) if turn % 2 else (1, 0):
                started = time.perf_counter()
                vectors[which] = timed[which]()
                seconds[which] = time.perf_counter() - started
            ratios.append(seconds[1] / seconds[0])
            ours_a_second.append(len(part) / seconds[0])
            cosine = min(cosine, float((vectors[0] * vectors[1]).sum(axis=1).min()))
        found[kind] = statistics.median(ratios)
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"{kind}: {found[kind]:.2f} times float32 in plain order (rounds {each}), "
            f"{statistics.median(ours_a_second):.1f} texts/s, least cosine {cosine:.5f}",
            flush=True,
        )
    return found


def _plain(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """The library's own forward pass, 32 texts at a time in the order they come."""
    import torch

    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            features = encoder._model.preprocess(texts[start : start + 32])
            vectors.append(encoder._model(features)["sentence_embedding"].numpy())
    return np.concatenate(vectors)


def _texts(n: int) -> dict[str, list[str]]:
    """`n` texts of each kind, in an order that has nothing to do with their length."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("NIGHTSHIFT_DATA", beside)) / "ml-1m-text"
    draw = random.Random(0)
    kinds = {}
    if folder.is_dir():
        for name in FILES:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            kinds[name.partition(".")[0]] = [text for line in lines if (text := json.loads(line)["text"].strip())]
    else:
        lengths = {"made-up item texts": (90, 130), "made-up user texts": (60, 220), "made-up short texts": (10, 70)}
        for name, (least, most) in lengths.items():
            kinds[name] = [words(i, draw.randint(least, most)) for i in range(3000)]
    mixed = [text for texts in kinds.values() for text in texts]
    return {name: draw.sample(texts, min(n, len(texts))) for name, texts in {"all together": mixed, **kinds}.items()}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    found = bench(**vars(parser.parse_args()))
    print(
        f"encoder over float32 in plain order: {found['all together']:.2f} (at least 2.5 where the CPU has bf16 units)"
    )


if __name__ == "__main__":
    main()
