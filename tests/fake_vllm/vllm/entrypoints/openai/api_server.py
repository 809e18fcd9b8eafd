"""The stand-in's `python -m vllm.entrypoints.openai.api_server`: HTTP, arguments, faults; the standard library only."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
WRITING = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids")
PENALTIES = ("presence_penalty", "frequency_penalty", "repetition_penalty")
TELLING = ("logprobs", "logprob_token_ids", "return_tokens_as_token_ids", "return_token_ids")
FIELDS = frozenset(("model", "prompt", "max_tokens", *WRITING, *PENALTIES, *TELLING))
MOST_LOGPROBS = 20
MOST_TOKEN_IDS = 128


class Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        self.code, self.kind = code, kind
        super().__init__(message)


class State:
    """One life of a server.

    Args:
        args: Its command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.home = Path(os.environ["FAKE_VLLM"])
        self.key = os.environ.get("VLLM_API_KEY", "")
        self.adapters = {row["name"]: row["path"] for row in map(json.loads, args.lora_modules)}
        self.name = args.served_model_name or args.model
        config = json.loads((Path(args.model) / "config.json").read_text())
        self.context = args.max_model_len or config["max_position_embeddings"]
        self.vocabulary = config["vocab_size"]
        self.lock = threading.Lock()
        self.ready = threading.Event()
        self.answered = 0
        self.start = 0

    def faults(self) -> dict[str, Any]:
        """Return how this life is to go wrong now."""
        try:
            found: dict[str, Any] = json.loads((self.home / "faults.json").read_text())
        except FileNotFoundError:
            return {}
        return found if self.start < found["since"] + found.get("lives", 10**9) else {}

    def register(self) -> None:
        """Put this start on record."""
        path = self.home / "starts.jsonl"
        before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.start = len(before)
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
        alive = {int(group) for group, state in map(str.split, listed.splitlines()) if not state.startswith("Z")}
        row = {
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "argv": sys.argv[1:],
            "key": self.key,
            "env": {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "VLLM_CPU_KVCACHE_SPACE")},
            "others": [other["group"] for other in before if other["group"] in alive],
        }
        self.note("starts", row)

    def note(self, name: str, row: dict[str, Any]) -> None:
        with (self.home / f"{name}.jsonl").open("a") as handle:
            handle.write(json.dumps(row) + "\n")

    def compute(self, asked: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.home / "brain"))
            line.sendall(json.dumps({"model": self.args.model, **asked}).encode() + b"\n")
            with line.makefile() as told:
                found: dict[str, Any] = json.loads(told.readline())
                return found

    def load(self) -> None:
        """Get ready, in a thread of its own, while /health says 503."""
        try:
            for adapter in (None, *self.adapters.values()):
                self.compute({"adapter": adapter})
        except (OSError, ValueError):
            traceback.print_exc()
            print("RuntimeError: Engine core initialization failed.", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(self.faults().get("loading_s", 0))
        self.ready.set()
        print("INFO: Application startup complete.", flush=True)
        (self.home / f"ready-{os.getpid()}").write_text(str(self.args.port))

    def die(self) -> None:
        print("EngineDeadError: EngineCore encountered an issue.", file=sys.stderr, flush=True)
        if self.faults().get("die_by") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        if self.path == "/health":
            well = self.state.ready.is_set() and not self.state.faults().get("hang")
            self._reply(200 if well else 503, None)
        elif not self._is_allowed():
            self._reply(401, {"error": "Unauthorized"})
        elif self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [*self._models()]})
        else:
            self._reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while self.state.faults().get("hang"):
            time.sleep(0.05)
        if not self._is_allowed():
            self._reply(401, {"error": "Unauthorized"})
        elif self.path != "/v1/completions":
            self._reply(404, {"detail": "Not Found"})
        else:
            try:
                self._reply(200, self._completions(json.loads(body)))
            except Refused as error:
                told = {"message": str(error), "type": error.kind, "param": None, "code": error.code}
                self._reply(error.code, {"error": told})

    def _is_allowed(self) -> bool:
        return not self.state.key or self.headers["Authorization"] == f"Bearer {self.state.key}"

    def _models(self) -> list[dict[str, Any]]:
        state = self.state
        base = {"id": state.name, "root": state.args.model, "parent": None, "max_model_len": state.context}
        adapters = [
            {"id": name, "root": path, "parent": state.name, "max_model_len": None}
            for name, path in state.adapters.items()
        ]
        hidden = state.faults().get("hide", [])
        return [{"object": "model", **row} for row in (base, *adapters) if row["id"] not in hidden]

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        state, faults = self.state, self.state.faults()
        state.note("calls", {"start": state.start, "body": body})
        if body["model"] not in (state.name, *state.adapters):
            raise Refused(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
        _check(body, state)
        if any(faults.get("refuse_token") in prompt for prompt in body["prompt"]):
            raise Refused(400, "BadRequestError", "a token that this server does not like")
        time.sleep(faults.get("slow_s", 0))
        with state.lock:
            ending = state.answered >= faults.get("die_after", 10**9)
            if ending and faults.get("abort"):
                threading.Timer(0.5, state.die).start()
            elif ending:
                if not faults.get("error_first"):
                    state.die()
                threading.Timer(0.3, state.die).start()
                raise Refused(500, "InternalServerError", "EngineCore encountered an issue.")
            state.answered += len(body["prompt"])
        adapter = None if faults.get("ignore_adapters") else state.adapters.get(body["model"])
        told = state.compute({**body, "model": state.args.model, "adapter": adapter})
        if ending:
            for choice in told["choices"]:
                choice |= {"finish_reason": "abort", "token_ids": choice["token_ids"][:1]}
        return {"id": "cmpl-0", "object": "text_completion", "model": body["model"], **told}

    def _reply(self, code: int, content: object) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        try:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True


def _check(body: dict[str, Any], state: State) -> None:
    """Refuse what vLLM refuses, and what it would leave unread."""
    wanted = body.get("logprob_token_ids")
    complaints = {
        f"unknown fields {sorted(set(body) - FIELDS)}": not set(body) <= FIELDS,
        "max_tokens must be at least 1": body["max_tokens"] < 1,
        "temperature must be non-negative": body.get("temperature", 1.0) < 0,
        "top_p must be in (0, 1]": not 0 < body.get("top_p", 1.0) <= 1,
        "when using `logprob_token_ids`, `logprobs` must be set": wanted is not None and body.get("logprobs") is None,
        f"more than {MOST_TOKEN_IDS} logprob_token_ids": wanted is not None and len(wanted) > MOST_TOKEN_IDS,
        "out-of-vocab token ids": not all(0 <= i < state.vocabulary for i in wanted or ()),
        f"more than {MOST_LOGPROBS} logprobs": wanted is None and (body.get("logprobs") or 0) > MOST_LOGPROBS,
        "an empty prompt": not all(body["prompt"]),
    }
    for complaint, applies in complaints.items():
        if applies:
            raise Refused(400, "BadRequestError", complaint)
    for prompt in body["prompt"]:
        if len(prompt) + body["max_tokens"] > state.context:
            raise Refused(
                400,
                "BadRequestError",
                f"This model's maximum context length is {state.context} tokens. However, you requested "
                f"{body['max_tokens']} output tokens and your prompt contains {len(prompt)} input tokens.",
            )


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="api_server.py")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    for name in ("--revision", "--tokenizer-revision", "--quantization"):
        parser.add_argument(name)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--generation-config", choices=("vllm", "auto"))
    parser.add_argument("--gpu-memory-utilization", type=float)
    for name in ("--max-model-len", "--tensor-parallel-size", "--max-loras"):
        parser.add_argument(name, type=int)
    parser.add_argument("--max-lora-rank", type=int, choices=RANKS)
    for name in ("--enforce-eager", "--enable-lora", "--disable-uvicorn-access-log"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    return parser.parse_args()


def _check_adapters(state: State) -> None:
    if state.adapters and not state.args.enable_lora:
        raise ValueError("--lora-modules needs --enable-lora")
    for path in state.adapters.values():
        rank = json.loads((Path(path) / "adapter_config.json").read_text())["r"]
        if rank > state.args.max_lora_rank:
            raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank {state.args.max_lora_rank}.")


def main() -> None:
    args = _parsed()
    state = Handler.state = State(args)
    state.register()
    faults = state.faults()
    print(f"INFO: vLLM API server (stand-in), start {state.start}", flush=True)
    if "exit_at_start" in faults:
        sys.exit(faults["exit_at_start"])
    if faults.get("taken"):
        sys.exit("OSError: [Errno 98] Address already in use")
    _check_adapters(state)
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    args.port = server.server_address[1]
    # The engine core: a process of its own that does not end with this one.
    subprocess.Popen(["sleep", "600"])
    threading.Thread(target=state.load, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
