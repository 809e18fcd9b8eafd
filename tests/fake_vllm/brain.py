"""What a stand-in for vLLM answers: computed with the checkpoint, in float32, by a thread that all servers ask."""

from __future__ import annotations

import functools
import json
import socketserver
import threading
from typing import Any, cast

import torch
from peft import PeftModel
from tiny_models import quiet
from transformers import AutoModelForCausalLM, AutoTokenizer


class Brain:
    """Listens on a Unix socket: a line of JSON in, a line of JSON out, a connection for each.

    A line with "prompt" is answered by {"choices": [...]} as vLLM writes them, one without is answered once the model
    is loaded.

    Args:
        path: Of the socket.
    """

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        brain = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asked = json.loads(self.rfile.readline())
                # Threads that wait for each other are no help with models this small.
                torch.set_num_threads(1)
                with brain._lock:
                    told = brain._answer(asked)
                self.wfile.write(json.dumps(told).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of a server that was killed while it waited."""

        self._server = Server(path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        model, words = _loaded(asked["model"], asked.get("adapter"))
        if "prompt" not in asked:
            return {}
        return {"choices": [_choice(i, prompt, model, words, asked) for i, prompt in enumerate(asked["prompt"])]}


@functools.cache
def _loaded(folder: str, adapter: str | None) -> tuple[Any, Any]:
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), cast("Any", AutoTokenizer).from_pretrained(folder)


def _choice(index: int, prompt: list[int], model: Any, words: Any, asked: dict[str, Any]) -> dict[str, Any]:
    seed = asked.get("seed")
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    ends = {words.eos_token_id, *(asked.get("stop_token_ids") or [])}
    tokens: list[int] = []
    tops: list[dict[str, float]] = []
    finish, reason = "length", None
    text = ""
    while len(tokens) < asked["max_tokens"]:
        with torch.inference_mode():
            logits_V = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
        tokens.append(_next(logits_V, asked, generator))
        if asked.get("logprobs") is not None:
            tops.append(_tops(logits_V.log_softmax(-1), tokens[-1], asked))
        if tokens[-1] in ends:
            finish, reason = "stop", tokens[-1] if tokens[-1] != words.eos_token_id else None
            break
        text = words.decode(tokens, skip_special_tokens=True)
        if cuts := [text.index(stop) for stop in asked.get("stop") or [] if stop in text]:
            finish, text = "stop", text[: min(cuts)]
            break
    return {
        "index": index,
        "text": text,
        "logprobs": {"top_logprobs": tops} if tops else None,
        "finish_reason": finish,
        "stop_reason": reason,
        "token_ids": tokens if asked.get("return_token_ids") else None,
    }


def _next(logits_V: torch.Tensor, asked: dict[str, Any], generator: torch.Generator | None) -> int:
    temperature = asked.get("temperature", 1.0)
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = (logits_V / temperature).softmax(-1)
    ranked_V, order_V = probs_V.sort(descending=True, stable=True)
    kept_V = ranked_V.cumsum(0) - ranked_V < asked.get("top_p", 1.0)
    kept_V[asked.get("top_k") or len(kept_V) :] = False
    return int(order_V[torch.multinomial(ranked_V * kept_V, 1, generator=generator)])


def _tops(logprobs_V: torch.Tensor, token: int, asked: dict[str, Any]) -> dict[str, float]:
    wanted = asked.get("logprob_token_ids") or logprobs_V.topk(asked["logprobs"]).indices.tolist()
    return {f"token_id:{i}": float(logprobs_V[i]) for i in {token, *wanted}}
