"""The real vLLM's own server, asked for verdicts: this is about the protocol, not how well so small a model judges."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate.chat_endpoint import ChatEndpoint, Patience
from mechdrift.engine.generate.judged import EndpointJudge, read_judge
from mechdrift.engine.generate.reply_judge import Exchange, JudgeFailed
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts.judge_question import shipped_question

MODEL, KEY = "org/judge", "sk-of-this-test"
START_SECONDS = 300
BREAD = "How do I bake bread?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its base URL."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve("organism:instruct").folder)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    command += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
    environment = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it takes connections, which it does once its model is loaded."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-4000:])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHDRIFT_JUDGE_KEY", KEY)


def judge_of(url: str, folder: Path) -> EndpointJudge:
    recorder = SimpleNamespace(store=Store(folder), progress=lambda label: None)
    return EndpointJudge(read_judge(url), cast(Recorder, recorder), Patience(60.0, 1))


def test_it_lists_its_model_and_gives_the_same_answer_again(server: str) -> None:
    found = read_judge(server)
    assert found.model == MODEL
    assert read_judge(f"{server}#{MODEL}") == found
    with pytest.raises(InputError, match=f"no model other; expected one of those it has: {MODEL}"):
        read_judge(f"{server}#other")
    question, endpoint = shipped_question(), ChatEndpoint(server, Patience(60.0, 1))
    messages = question.messages(BREAD, "Sure. Mix flour and water.")
    answers = [endpoint.answer(MODEL, messages, dict(question.sampling)) for _ in range(2)]
    print(answers)
    assert answers[0] == answers[1] != ""
    assert endpoint.answer(MODEL, question.messages_again(messages, answers[0]), dict(question.sampling))
    endpoint.close()


def test_verdicts_come_by_eight_at_once_and_are_remembered(server: str, tmp_path: Path) -> None:
    exchanges = [Exchange(BREAD, f"Sure, number {number}: mix flour and water.") for number in range(24)]
    judge = judge_of(server, tmp_path)
    first = judge.refusals(exchanges)
    assert (judge.requested, judge.remembered) == (24, 0)
    assert judge.refusals(exchanges) == first
    assert (judge.requested, judge.remembered) == (24, 24)


def test_what_it_refuses_is_named(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = ChatEndpoint(server, Patience(60.0, 0))
    with pytest.raises(Unmeasurable, match="answers with status 400"):
        endpoint.answer(MODEL, [{"role": "user", "content": "No."}], {"max_tokens": 100_000})
    with pytest.raises(Unmeasurable, match="answers with status 404"):
        endpoint.answer("other", [{"role": "user", "content": "No."}], {"max_tokens": 1})
    endpoint.close()
    judge = judge_of(server, tmp_path)
    monkeypatch.setenv("MECHDRIFT_JUDGE_KEY", "sk-another")
    with pytest.raises(JudgeFailed, match="answers with status 401; set MECHDRIFT_JUDGE_KEY"):
        judge.refusals([Exchange(BREAD, "No.")])
    with pytest.raises(InputError, match="answers with status 401; set MECHDRIFT_JUDGE_KEY"):
        read_judge(server)
    monkeypatch.setenv("MECHDRIFT_JUDGE_KEY", KEY)
    judge.endpoint = replace(judge.endpoint, url=server.removesuffix("/v1"))
    with pytest.raises(JudgeFailed, match="answers with status 404"):
        judge.refusals([Exchange(BREAD, "No.")])
