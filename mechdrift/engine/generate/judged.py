"""A language model behind an endpoint, which decides which replies refuse: found, checked, asked, and remembered."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mechdrift.engine.generate.reply_judge import Agreement, Exchange, JudgeFailed
from mechdrift.engine.store import Part, Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts.judge_question import VERDICTS, Verdict, shipped_question, verdict_of

if TYPE_CHECKING:
    from torch import Tensor

    from mechdrift.engine.generate.chat_endpoint import ChatEndpoint, Patience

OPTION = "--mechdrift-judge"
UNDER_WAY = 8  # requests under way
SHOWN = 5  # models that a message names
START_SECONDS, START_RETRIES = 20.0, 1  # of the check before a run
REFUSES: dict[Verdict, bool | None] = {"REFUSED": True, "COMPLIED": False, "UNCLEAR": None}


@dataclass(frozen=True)
class JudgeEndpoint:
    """Where the judge is, and what it is asked; the key to it is nowhere but in the environment."""

    url: str
    """The API's base URL, without credentials."""
    model: str
    """By the endpoint's name for it."""
    question: str
    """sha256 of what it is asked."""

    def to_dict(self) -> dict[str, Any]:
        """As the record has it."""
        return {"model": self.model, "question": self.question}

    @property
    def key(self) -> str:
        """As it stands in a row's key, wherever the endpoint is: `judge MODEL, question of sha256 0123456789ab`."""
        return f"judge {self.model}, question of sha256 {self.question[:12]}"

    def __str__(self) -> str:
        """For a run's header."""
        return f"{self.model} at {self.url}, question of sha256 {self.question[:12]}"


def read_judge(given: str) -> JudgeEndpoint:
    """The judge of `URL` or `URL#MODEL`; without a model, the only one that the endpoint serves.

    Raises InputError where the extra is not installed, the endpoint does not answer, or does not serve the model.
    """
    if find_spec("openai") is None:
        raise InputError(f"{OPTION} without openai", "the extra `judge`", "pip install 'mechdrift[judge]'")
    from mechdrift.engine.generate.chat_endpoint import ChatEndpoint, Patience

    url, _, model = given.partition("#")
    endpoint = ChatEndpoint(url, Patience(START_SECONDS, START_RETRIES))
    try:
        served = [_printable(name) for name in endpoint.models()]
    except Unmeasurable as error:
        raise InputError(
            f"{OPTION} {url}: {error}", "an OpenAI-compatible API that lists its models", "check that it runs, and its URL"
        ) from error
    finally:
        endpoint.close()
    names = ", ".join(served[:SHOWN]) + (f" and {len(served) - SHOWN} more" if len(served) > SHOWN else "")
    if (model and model not in served) or len(served) == 0:
        raise InputError(f"{OPTION} {url}: no model {model}".rstrip(), f"one of those it has: {names or 'none'}", "name another")
    if not model and len(served) > 1:
        raise InputError(f"{OPTION} {url}: {len(served)} models, {names}", "one", f"type {OPTION} {url}#MODEL")
    return JudgeEndpoint(url, model or served[0], shipped_question().digest)


def _printable(name: str) -> str:
    """A model's name, which a stranger chose, as a message may show it."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]


@dataclass
class EndpointJudge:
    """A ReplyJudge that is asked once about each reply to each instruction: its verdicts are kept in the store."""

    endpoint: JudgeEndpoint
    recorder: Recorder
    """Whose store keeps the verdicts."""
    patience: "Patience | None" = None
    """None: the usual one."""
    requested: int = 0
    """Verdicts that the endpoint gave in this process."""
    remembered: int = 0
    """Verdicts read from the store."""
    agreements: dict[str, Agreement] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """As the protocol says."""
        return self.endpoint.key

    @property
    def provenance(self) -> list[str]:
        """As the protocol says; not where the endpoint is."""
        return ["endpoint", self.endpoint.model, self.endpoint.question]

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool | None]:
        """As the protocol says. What was judged before the endpoint failed is kept."""
        from mechdrift.engine.generate.chat_endpoint import ChatEndpoint, Patience

        unique = list(dict.fromkeys(exchanges))
        connection = ChatEndpoint(self.endpoint.url, self.patience or Patience())
        progress = self.recorder.progress(f"judged by {self.endpoint.model}")
        failures: list[Exception] = []

        def verdict(exchange: Exchange) -> tuple[Verdict, Store]:
            if failures:
                raise failures[0]
            try:
                return self._verdict(connection, exchange)
            except Exception as error:
                failures.append(error)
                raise

        with ThreadPoolExecutor(UNDER_WAY) as pool:
            requests = [pool.submit(verdict, one) for one in unique]
            try:
                waiting = set(requests)
                while waiting and not failures:
                    _, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
                    if progress is not None and len(waiting) < len(unique):
                        progress(len(unique) - len(waiting), len(unique))
            except KeyboardInterrupt:
                connection.close()  # nobody waits for what is under way
                raise
            finally:
                pool.shutdown(cancel_futures=True)
                connection.close()
                self._count([one.result() for one in requests if not one.cancelled() and not one.exception()])
        if failures:
            raise failures[0]
        verdicts = {exchange: one.result()[0] for exchange, one in zip(unique, requests, strict=True)}
        return [REFUSES[verdicts[exchange]] for exchange in exchanges]

    def _verdict(self, connection: "ChatEndpoint", exchange: Exchange) -> tuple[Verdict, Store]:
        """The verdict on one reply, and the store by which it was had: one of its own, as no store is used by several threads."""
        import torch

        store = Store(self.recorder.store.folder, read_only=self.recorder.store.read_only)
        of = hashlib.sha256(json.dumps([exchange.instruction, exchange.reply]).encode()).hexdigest()
        provenance = {"kind": "verdict", "judge": self.provenance, "of": of}

        def make() -> "Tensor":
            return torch.tensor([float(VERDICTS.index(self._asked(connection, exchange)))])

        (kept,) = store.get(provenance, [Part((1,), make)], f"judged by {self.endpoint.model}")
        return VERDICTS[int(kept[0])], store

    def _asked(self, connection: "ChatEndpoint", exchange: Exchange) -> Verdict:
        """What the endpoint says: UNCLEAR where it does not keep to the words, twice. Raises JudgeFailed."""
        question = shipped_question()
        messages = question.messages(exchange.instruction, exchange.reply)
        try:
            answer = connection.answer(self.endpoint.model, messages, dict(question.sampling))
            verdict = verdict_of(answer)
            if verdict is None:
                messages = question.messages_again(messages, answer)
                verdict = verdict_of(connection.answer(self.endpoint.model, messages, dict(question.sampling)))
        except Unmeasurable as error:
            raise JudgeFailed(
                f"the judge {self.endpoint.model} {error}; its verdicts so far are kept: the same command goes on from there"
            ) from error
        return verdict or "UNCLEAR"

    def _count(self, had: Sequence[tuple[Verdict, Store]]) -> None:
        """Note down how verdicts were had, and what went wrong with the store."""
        self.requested += sum(store.misses for _, store in had)
        self.remembered += sum(store.hits for _, store in had)
        kept = self.recorder.store.warnings
        kept += dict.fromkeys(line for _, store in had for line in store.warnings if line not in kept)
