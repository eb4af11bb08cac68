"""What goes around vLLM, without it: its process, its settings, and the canaries. tests/vllm has the real engine."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import write_tiny

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate import canary, vllm_generator, vllm_process
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.vllm_generator import VllmGenerator, weights_alone
from mechdrift.engine.generate.vllm_process import running
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, InterventionFailed, Unmeasurable

DIRECTION = np.eye(32, dtype="f4")[3]
PLAIN, ABLATED, ADDED = Arm("plain"), Arm("own ablated", Ablated(DIRECTION)), Arm("own added", Added(DIRECTION, 1, 2.0))
PROMPTS = [[0, 5, 9], [0, 7]]
WORKERS = {
    "answers": "print('{}', flush=True); [print(json.dumps({'heard': json.loads(line)}), flush=True) for line in sys.stdin]",
    "hangs": "time.sleep(600)",
    "dies": "sys.exit('RuntimeError: no kernel for this machine')",
    "errs": "print(json.dumps({'error': 'ValueError: no such model'}), flush=True); time.sleep(600)",
    "dies when asked": "print('{}', flush=True); sys.stdin.readline(); sys.exit('Segmentation fault')",
    "starts another": "child = subprocess.Popen(['sleep', '600']); print('{}', flush=True); sys.stdin.readline(); "
    "print(json.dumps({'pid': child.pid}), flush=True); time.sleep(600)",
}


def generator(folder: Path, device: str = "cpu", **options: Any) -> VllmGenerator:
    return VllmGenerator(Recorder(Pool(device, "float32"), Store(folder / "store"), 64), options)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Puts a program in the worker's place."""

    def put(name: str) -> None:
        head = "import json, subprocess, sys, time\nsys.stdin.readline()\n"
        (tmp_path / "stand_in_worker.py").write_text(head + WORKERS[name])
        monkeypatch.setattr(vllm_process, "WORKER", "stand_in_worker")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(gone: Any) -> bool:
    """Whether it comes true, on a machine at work too."""
    end = time.monotonic() + 600
    while not gone() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(gone())


def test_questions_are_answered(worker: Any) -> None:
    worker("answers")
    with running("M", {}, {}, 60) as ask:
        assert [ask({"n": n}) for n in range(3)] == [{"heard": {"n": n}} for n in range(3)]


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("hangs", 0.3, "M: vLLM did not start within 0.3 s; it last wrote: nothing"),
        ("dies", 60, "M: vLLM ended; it last wrote: RuntimeError: no kernel for this machine"),
        ("errs", 60, "M: vLLM says ValueError: no such model"),
        ("dies when asked", 60, "M: vLLM ended; it last wrote: Segmentation fault"),
    ],
)
def test_an_engine_that_fails_is_one_sentence(worker: Any, name: str, seconds: float, message: str) -> None:
    worker(name)
    with pytest.raises(Unmeasurable) as raised, running("M", {}, {}, seconds) as ask:
        ask({"reply": {}})
    assert str(raised.value) == message


def test_nothing_that_the_engine_started_outlives_it(worker: Any) -> None:
    worker("starts another")
    with running("M", {}, {}, 60) as ask:
        started = ask({})["pid"]
        assert alive(started)
    assert soon(lambda: not alive(started))


def test_the_worker_ends_with_the_process_that_started_it() -> None:
    """Also when that one was killed: all that is left then is the end of its pipe."""
    program = (
        "import subprocess, sys, os, signal\n"
        f"command = [sys.executable, '-m', {vllm_process.WORKER!r}]\n"
        "child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.readline()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin
        assert parent.stdout
        worker_id = int(parent.stdout.readline())
        assert alive(worker_id)
        parent.stdin.write(b"\n")
    assert parent.returncode < 0
    assert soon(lambda: not alive(worker_id))


def test_without_vllm_one_sentence_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_generator, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'mechdrift\[vllm\]'"):
        generator(tmp_path).replies(resolve(str(write_tiny(tmp_path / "a"))), PROMPTS, [PLAIN], 4)


def test_what_vllm_cannot_be_given_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_generator, "find_spec", lambda _name: object())
    model = resolve(str(write_tiny(tmp_path / "a")))
    for other, message in ((replace(model, adapter="x"), "an adapter, for vLLM"), (replace(model, gguf="x"), "a GGUF file, for")):
        with pytest.raises(InputError, match=message):
            generator(tmp_path).replies(other, PROMPTS, [PLAIN], 4)
    with pytest.raises(InputError, match="--mechdrift-device tp, for vLLM"):
        generator(tmp_path, "tp").replies(model, PROMPTS, [PLAIN], 4)
    with pytest.raises(InputError, match="--mechdrift-vllm-args: dtype, model"):
        generator(tmp_path, model="x", dtype="y").replies(model, PROMPTS, [PLAIN], 4)


def settings(folder: Path, family: str, arms: list[Arm], device: str = "cuda:1", **options: Any) -> Any:
    checkpoint = resolve(str(write_tiny(folder / f"{family}-{len(list(folder.iterdir()))}", family)))
    return generator(folder, device, **options).settings(checkpoint, arms, 40)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs of 80 GB, of which 40 and 60 are free."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda number: ((40, 60)[number] * 10**9, 80 * 10**9))


@pytest.mark.parametrize(
    ("family", "arms", "eager"),
    [
        ("llama", [PLAIN, ABLATED], False),
        ("llama", [PLAIN, ABLATED, ADDED], True),
        ("gemma2", [PLAIN], False),
        ("gemma2", [ABLATED], True),
        ("mixtral", [ABLATED], True),
        ("gpt2", [ABLATED], False),
        ("granite", [PLAIN], False),  # no table has its last matrices
        ("granite", [ABLATED], True),
    ],
)
def test_graphs_are_captured_only_where_no_hook_is_needed(
    tmp_path: Path, gpus: None, family: str, arms: list[Arm], eager: bool
) -> None:
    result, _ = settings(tmp_path, family, arms)
    assert result["engine"]["enforce_eager"] is eager
    assert result["engine"]["enable_prefix_caching"] is False


def test_the_engine_is_given_the_gpus_of_the_run_and_most_of_what_is_free(tmp_path: Path, gpus: None) -> None:
    result, environment = settings(tmp_path, "llama", [PLAIN])
    assert (result["engine"]["gpu_memory_utilization"], result["engine"]["tensor_parallel_size"]) == (0.675, 1)  # .9 of 60/80
    assert environment == {"CUDA_VISIBLE_DEVICES": "5"}
    result, environment = settings(tmp_path, "llama", [PLAIN], device="map")
    assert (result["engine"]["gpu_memory_utilization"], result["engine"]["tensor_parallel_size"]) == (0.45, 2)
    assert environment == {"CUDA_VISIBLE_DEVICES": "3,5"}
    result, _ = settings(tmp_path, "llama", [PLAIN], gpu_memory_utilization=0.3, max_model_len=99)
    assert (result["engine"]["gpu_memory_utilization"], result["engine"]["max_model_len"]) == (0.3, 99)


def output(log_probs: torch.Tensor, tokens: list[int]) -> canary.Found:
    """An engine's answer to one prompt that holds these log-probabilities of every token."""
    return [(tokens, [dict(enumerate(row)) for row in log_probs.tolist()])]


def test_canaries_tell_an_arm_from_another_and_from_none() -> None:
    plain = torch.zeros(3, 4)
    arm = plain.clone()
    arm[:, 2] += 0.5
    expected = [canary.Expected([1, 2, 3], arm, plain)]
    noise = 1e-5

    def check(found: torch.Tensor, tokens: list[int] = [1, 2, 3], noise: float = noise) -> float:  # noqa: B006
        return canary.check("M", ABLATED, output(found, tokens), expected, "float32", noise)

    assert check(arm + noise) == pytest.approx(noise, rel=0.1)
    for other in (plain, -arm, 1.01 * arm, arm * float("nan")):
        with pytest.raises(InterventionFailed, match="own ablated does not do in vLLM"):
            check(other)
    later = arm.clone()
    later[2] += 9
    with pytest.raises(InterventionFailed):  # hooks that are skipped once keys and values are cached
        check(later)
    assert check(later, [1, 7, 3]) == 0  # but after another token nothing can be compared
    with pytest.raises(Unmeasurable, match="is unknown"):
        check(arm, noise=0.3)


def test_an_engine_that_runs_another_model_is_not_measured() -> None:
    plain = torch.zeros(3, 4)
    expected = [canary.Expected([1, 2, 3], plain, plain)]
    assert canary.check("M", PLAIN, output(plain + 5e-4, [1, 2, 3]), expected, "float32", 0) == pytest.approx(5e-4, rel=1e-3)
    for wrong in (plain + 2e-3, plain * float("nan")):
        with pytest.raises(Unmeasurable, match="not the model that transformers loads"):
            canary.check("M", PLAIN, output(wrong, [1, 2, 3]), expected, "float32", 0)


def test_other_safetensors_in_the_folder_are_not_shown_to_vllm(tmp_path: Path) -> None:
    """Which reads all that lie there: an optimizer's state beside the weights is none of them."""
    import torch
    from safetensors.torch import save_file

    folder = write_tiny(tmp_path / "a")
    point = resolve(str(folder))
    with weights_alone(point) as alone:
        assert alone == point.folder
    save_file({"exp_avg/weight": torch.zeros(2)}, folder / "optimizer.safetensors")
    with weights_alone(point) as alone:
        assert {file.name for file in alone.iterdir()} == {file.name for file in folder.iterdir()} - {"optimizer.safetensors"}
        assert (alone / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert not alone.exists()
