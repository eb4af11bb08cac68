"""A program, run by vllm_process.py: one vLLM engine that answers questions, one JSON object a line.

The first line it reads is what the engine is given; the others name what to do: `intervene` or `reply`. It ends when its input
does, so it does not outlive the run that started it.
"""

import json
import os
import queue
import signal
import sys
import threading
from functools import partial
from typing import Any, TextIO

from mechdrift.engine.generate.vllm_model import intervene


def main() -> None:
    """Start the engine and answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints is no answer
    requested: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(requested,), daemon=True).start()
    engine: Any = None
    while True:
        question = requested.get()
        try:
            if engine is None:
                engine = _start(question)
                _say(out, {})
            elif "intervene" in question:
                engine.apply_model(partial(intervene, request=question["intervene"]))
                _say(out, {})
            else:
                _say(out, {"replies": _reply(engine, **question["reply"])})
        except Exception as error:  # sent as one line, whatever it is
            _say(out, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def _read(requested: "queue.Queue[dict[str, Any]]") -> None:
    """Pass questions on; when there can be no more, end this process and all that the engine started."""
    for line in sys.stdin:
        requested.put(json.loads(line))
    os.killpg(0, signal.SIGKILL)


def _say(out: TextIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _start(request: dict[str, Any]) -> Any:
    """The engine."""
    from vllm import LLM

    if request["cpu"]:
        _keep_weights_plain()
    return LLM(**request["engine"])


def _keep_weights_plain() -> None:
    """On a CPU vLLM packs matrices into a form of oneDNN's own and drops them; plain ones can be changed in place."""
    import torch
    from vllm.model_executor.layers import utils

    def plain(layer: Any, **_how: Any) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


def _reply(engine: Any, prompts: list[list[int]], new_tokens: int, ends: list[int], top: int | None) -> list[dict[str, Any]]:
    """Greedy replies, as tokens; with top, also the log-probabilities of the likeliest tokens at every step."""
    from vllm import SamplingParams

    how = SamplingParams(
        temperature=0, max_tokens=new_tokens, stop_token_ids=ends, ignore_eos=True, logprobs=top, detokenize=False
    )
    message = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], how, use_tqdm=False)
    replies = []
    for one in message:
        steps = one.outputs[0].logprobs or []
        replies.append(
            {
                "tokens": list(one.outputs[0].token_ids),
                "log_probs": [{token: found.logprob for token, found in step.items()} for step in steps],
            }
        )
    return replies


if __name__ == "__main__":
    main()
