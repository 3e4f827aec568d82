"""How is a trained run served while it is timed? A process of its own that loads the run and ranks what it is sent.

`python -m flows.studies.latency.worker ROOT RUN` reads one JSON line [user id, [item ids]] for each request and answers
{"seconds": of ranking alone, "loaded": LLM libraries in this process}.
"""

import json
import sys
import time
from pathlib import Path

from ctr_models.recommend import Recommender
from ctr_models.runs import load_run

LLM_LIBRARIES = ("vllm", "transformers", "tokenizers", "sentence_transformers", "openai", "peft")
"""What a process that serves stored text has no use for."""


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    root, name = Path(sys.argv[1]), sys.argv[2]
    recommender = Recommender(load_run(root, name), root)
    for line in sys.stdin:
        user, items = json.loads(line)
        started = time.perf_counter()
        recommender.rank(user, items)
        seconds = time.perf_counter() - started
        loaded = [library for library in LLM_LIBRARIES if library in sys.modules]
        print(json.dumps({"seconds": seconds, "loaded": loaded}), file=answers, flush=True)


if __name__ == "__main__":
    main()
