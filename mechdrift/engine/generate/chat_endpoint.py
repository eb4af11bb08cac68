"""An OpenAI-compatible endpoint: its models, and answers to conversations. Needs the extra `judge`, so nothing imports it early.

openai's client has the timeouts, the retries with backoff, and `Retry-After`; what an endpoint sends is checked here.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import msgspec
from openai import APIConnectionError, APIStatusError, APITimeoutError, DefaultHttpxClient, OpenAI

from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts.judge_question import Message

KEYS = ("MECHDRIFT_JUDGE_KEY", "OPENAI_API_KEY")  # environment variables
LARGEST = 1 << 22  # bytes of an answer; one of few tokens is a thousand

Content = TypeVar("Content")


class Model(msgspec.Struct):
    """One that the endpoint serves."""

    id: str


class Models(msgspec.Struct):
    """The answer to GET models."""

    data: list[Model]


class Turn(msgspec.Struct):
    """What the model says; null where it only calls tools or thinks."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One answer."""

    message: Turn


class Completion(msgspec.Struct):
    """The answer to POST chat/completions."""

    choices: list[Choice]

    def __post_init__(self) -> None:
        """Raise ValueError for none; msgspec turns it into its own error."""
        if not self.choices:
            raise ValueError("no choices")


@dataclass(frozen=True)
class Patience:
    """How long a request is given."""

    seconds: float = 60.0
    """For one whole answer."""
    retries: int = 5
    """After the first try, where another may succeed: no connection, no whole answer in time, another form, status 408, 409, 429
    or 500 and above; after half a second, then twice as long each time up to 8 s, or as long as the endpoint asks, up to 120."""


class _WholeAnswers(DefaultHttpxClient):
    """Reads answers under one limit of time and size, and takes only those that have the form that was asked for.

    Anything else is an error of the connection, which openai's client tries again. httpx's own timeouts hold from byte to byte.
    """

    seconds: float = 0.0

    def send(self, request: httpx2.Request, **more: Any) -> httpx2.Response:
        """As httpx does, but whole. Raises httpx2.ReadTimeout and httpx2.RemoteProtocolError."""
        started = time.monotonic()
        response = super().send(request, **more | {"stream": True})
        body = b""
        try:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() - started > self.seconds:
                    raise httpx2.ReadTimeout("no end of the answer", request=request)
                if len(body) > LARGEST:
                    raise httpx2.RemoteProtocolError(f"an answer of more than {LARGEST:,} bytes", request=request)
        finally:
            response.close()
        if response.is_success:
            form = Models if request.method == "GET" else Completion
            try:
                msgspec.json.decode(body, type=form)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                what = "list of models" if form is Models else "chat completion"
                raise httpx2.RemoteProtocolError(f"an answer that is not the JSON of a {what}", request=request) from error
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_TRANSFER]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


class ChatEndpoint:
    """A connection to one; several threads may use it."""

    def __init__(self, url: str, patience: Patience) -> None:
        """The API's base URL; the key is read from the environment, and goes nowhere but into the header of requests.

        Raises InputError for a key that no header can hold.
        """
        connection = _WholeAnswers(timeout=patience.seconds, follow_redirects=False)
        connection.seconds = patience.seconds
        self._patience = patience
        self._client = OpenAI(
            base_url=url, api_key=_key(), timeout=patience.seconds, max_retries=patience.retries, http_client=connection
        )

    def models(self) -> list[str]:
        """The models that it serves. Raises Unmeasurable where it does not say."""
        return [model.id for model in self._requested("get", "/models", Models).data]

    def answer(self, model: str, messages: list[Message], sampling: dict[str, Any]) -> str:
        """What the model says next; empty where it says nothing. Raises Unmeasurable where no answer comes."""
        body = {"model": model, "messages": messages, **sampling}
        return self._requested("post", "/chat/completions", Completion, body=body).choices[0].message.content or ""

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _requested(self, method: str, path: str, form: type[Content], **more: Any) -> Content:
        """An answer of that form. Reasons hold nothing of what the endpoint sent: it may repeat a key or a reply."""
        try:
            response = getattr(self._client, method)(path, cast_to=httpx2.Response, **more)
        except APITimeoutError as error:
            raise Unmeasurable(f"gives no whole answer within {self._patience.seconds:g} s") from error
        except APIConnectionError as error:
            cause = error.__cause__
            why = str(cause) if isinstance(cause, httpx2.RemoteProtocolError) else "cannot be reached"
            raise Unmeasurable(f"gives {why}" if why.startswith("an answer") else why) from error
        except APIStatusError as error:
            key = f"; set {KEYS[0]}" if error.status_code in (401, 403) else ""
            raise Unmeasurable(f"answers with status {error.status_code}{key}") from error
        return msgspec.json.decode(response.content, type=form)


def _key() -> str:
    """The user's key; a server that asks for none ignores the word that stands for it. Raises InputError."""
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise InputError(f"{name} has characters that no key has", "printable ASCII", "set it again")
            return key
    return "none"
