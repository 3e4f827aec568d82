"""What runs in vLLM's own process? A loop that adds requests while others run, and says each answer when it is ready.

Started by `llm_features.engines.vllm` as `python -m ... <file descriptor to read> <file descriptor to write>`. Both
carry one JSON value a line. In: first {"llm": arguments of vllm.LLM, "sampling": arguments of SamplingParams}, then
[number, token ids, max_tokens, seed]. Out: first {"max_model_len": ...} or {"failed": message}, then
[number, text, finish_reason, output tokens]. When the reading end closes, this process and all it started end.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO

Message = Any
"""One JSON value."""


def main(read_from: int, write_to: int) -> None:
    """Serve until the other side closes, which is also how it stops this process."""
    incoming: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(read_from, incoming), daemon=True).start()
    with os.fdopen(write_to, "w", encoding="utf-8") as out:
        options = incoming.get()
        try:
            from vllm import LLM

            llm = LLM(**options["llm"])
        except Exception as error:
            _say(out, {"failed": f"{type(error).__name__}: {error}"})
            raise
        _say(out, {"max_model_len": llm.llm_engine.model_config.max_model_len})
        _serve(llm, options["sampling"], incoming, out)


def _serve(llm: Any, sampling: dict[str, Any], incoming: "queue.SimpleQueue[Message]", out: TextIO) -> None:
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    engine, tokenizer = llm.llm_engine, llm.get_tokenizer()
    while True:
        while not incoming.empty() or not engine.has_unfinished_requests():
            number, ids, max_tokens, seed = incoming.get()
            try:
                # Text is made once an answer is complete, which costs less than token by token.
                params = SamplingParams(
                    **sampling,
                    max_tokens=max_tokens,
                    seed=seed,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                engine.add_request(str(number), tokens_input(ids), params)
            except Exception as error:  # one bad request must not end the others
                _say(out, [number, f"{type(error).__name__}: {error}", "error", 0])
        answers = []
        for output in engine.step():
            if output.finished:
                answer = output.outputs[0]
                ids = list(answer.token_ids)
                if answer.finish_reason == "stop":  # the last token only ends the answer
                    del ids[-1:]
                text = tokenizer.decode(ids, skip_special_tokens=True)
                reason = answer.finish_reason if answer.finish_reason in ("stop", "length") else "error"
                answers.append([int(output.request_id), text, reason, len(answer.token_ids)])
        _say(out, *answers)


def _listen(read_from: int, incoming: "queue.SimpleQueue[Message]") -> None:
    """Read on a thread of its own: the end of the pipe is seen even while the model computes."""
    with os.fdopen(read_from, encoding="utf-8") as lines:
        for line in lines:
            incoming.put(json.loads(line))
    os.killpg(0, signal.SIGKILL)


def _say(out: TextIO, *messages: Message) -> None:
    if messages:
        out.write("".join(json.dumps(message) + "\n" for message in messages))
        out.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
