"""A small server of the API of chat completions, after its public reference, whose answers a test decides."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Sent:
    """What the server sends."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    wait: float = 0.0
    """Seconds before it sends anything, or between bytes where it drips."""
    drips: bool = False
    breaks_off: bool = False
    """Whether the connection ends before the body does."""


@dataclass
class Server:
    """What a test sees of it."""

    url: str = ""
    requested: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests for a completion."""
    keys: list[str | None] = field(default_factory=list)
    """The Authorization headers of all requests."""
    most_at_once: int = 0
    under_way: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: nothing waits any longer."""


def completion(content: str | None) -> Sent:
    """The answer of a model that says this."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Sent(body=json.dumps(body).encode())


def listed(models: Sequence[str]) -> Sent:
    """The answer to GET models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in models]
    return Sent(body=json.dumps({"object": "list", "data": data}).encode())


def failing(status: int, *headers: tuple[str, str]) -> Sent:
    """An error, and the wait of a millisecond before the next try, which openai's client takes from this header."""
    message = {"error": {"message": "no; key sk-secret", "type": "error", "code": None, "param": None}}
    return Sent(status, json.dumps(message).encode(), (("retry-after-ms", "1"), ("Content-Type", "application/json"), *headers))


@contextmanager
def serving(answer: Callable[[Messages], Sent], models: Sent | None = None) -> Iterator[Server]:
    """The server, on a free port of this machine, for as long as the test lasts."""
    seen, lock = Server(), threading.Lock()
    served = models or listed(["m"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            pass

        def do_GET(self) -> None:
            seen.keys.append(self.headers["Authorization"])
            self.send(served if self.path == "/v1/models" else failing(404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.keys.append(self.headers["Authorization"])
                seen.requested.append(body)
                seen.under_way += 1
                seen.most_at_once = max(seen.most_at_once, seen.under_way)
            self.send(answer(body["messages"]) if self.path == "/v1/chat/completions" else failing(404))

        def send(self, sent: Sent) -> None:
            if sent.wait and not sent.drips:
                seen.released.wait(sent.wait)
            with lock:
                seen.under_way -= self.command == "POST"
            self.send_response(sent.status)
            for name, value in (*sent.headers, ("Content-Length", str(len(sent.body) + sent.breaks_off))):
                self.send_header(name, value)
            self.end_headers()
            if sent.drips:
                for byte in sent.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if seen.released.wait(sent.wait):
                        break
            else:
                self.wfile.write(sent.body)
            self.close_connection = self.close_connection or sent.breaks_off

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has hung up is what some tests want."""

    server = Quiet(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        seen.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def reply_in(messages: Messages) -> str:
    """The reply that a question shows."""
    question = messages[0]["content"]
    return question.rpartition("\n[end of reply ")[0].rpartition("[reply ")[2].partition("]\n")[2]
