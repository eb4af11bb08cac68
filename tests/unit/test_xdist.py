"""What workers are started with; no GPU is needed to know."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from mechdrift.session.xdist import Workers, worker_environment


def environments(workers: int, gpus: list[str], on_cpu: bool = False) -> list[dict[str, str]]:
    return [worker_environment(number, gpus, on_cpu, {}) for number in range(workers)]


def test_each_worker_has_a_gpu_of_its_own() -> None:
    assert environments(2, ["5", "GPU-8f3a", "7"]) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-8f3a"}]


def test_fewer_gpus_are_shared_in_turn() -> None:
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments(5, ["2", "3"])] == ["2", "3", "2", "3", "2"]


def test_workers_on_a_cpu_have_one_thread_unless_the_user_said_otherwise() -> None:
    assert environments(2, [], on_cpu=True) == [{"OMP_NUM_THREADS": "1"}] * 2
    assert worker_environment(0, [], True, {"OMP_NUM_THREADS": "8"}) == {}


class Spec(SimpleNamespace):
    """As execnet has it, as far as workers are told apart by it."""

    env: dict[str, str]


def started(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, visible: str | None, specs: list[Spec]) -> list[str]:
    """Set workers up on a machine with so many GPUs, of which these are visible; returns what is said."""
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    run: Any = SimpleNamespace(settings=SimpleNamespace(device=device), warnings=[])
    Workers(run).pytest_xdist_setupnodes(specs)
    warnings: list[str] = run.warnings
    return warnings


def specs(number: int, **own: str) -> list[Spec]:
    return [Spec(env=dict(own)) for _ in range(number)]


def test_numbers_are_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs(2)
    assert started(monkeypatch, "auto", 2, "6,3", made) == []
    assert [spec.env for spec in made] == [{"CUDA_VISIBLE_DEVICES": "6"}, {"CUDA_VISIBLE_DEVICES": "3"}]


def test_what_cuda_does_not_see_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA takes the names up to the first that is none."""
    made = specs(2)
    assert started(monkeypatch, "cuda", 1, "4,-1,5", made) == ["2 workers share GPU 4 in turn; -n 1 gives each its own"]
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in made] == ["4", "4"]


def test_without_the_variable_all_gpus_are_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs(3)
    (note,) = started(monkeypatch, "auto", 2, None, made)
    assert note.startswith("3 workers share GPU 0, 1 in turn; -n 2")
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in made] == ["0", "1", "0"]


def test_a_gpu_that_the_user_named_is_everyones(monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs(2)
    assert started(monkeypatch, "cuda:1", 2, None, made) == []
    assert [spec.env for spec in made] == [{}, {}]


def test_on_a_cpu_of_a_machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs(2)
    assert started(monkeypatch, "cpu", 2, None, made) == []
    assert [spec.env for spec in made] == [{"OMP_NUM_THREADS": "1"}] * 2


def test_what_the_user_gave_a_worker_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs(2, CUDA_VISIBLE_DEVICES="1")
    started(monkeypatch, "auto", 2, None, made)
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in made] == ["1", "1"]


def test_xdist_starts_workers_with_it(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into a spec is in the worker's environment before a test module is read."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pytester.makeconftest(
        """
        import pytest
        from types import SimpleNamespace
        from mechdrift.session.xdist import Workers

        class Ours:
            pytest_xdist_setupnodes = Workers(
                SimpleNamespace(settings=SimpleNamespace(device="cpu"), warnings=[])
            ).pytest_xdist_setupnodes

        def pytest_configure(config):
            config.pluginmanager.register(Ours())
        """
    )
    pytester.makepyfile(
        """
        import os
        THREADS = os.environ.get("OMP_NUM_THREADS")

        def test_threads():
            import torch
            assert THREADS == "1"
            assert torch.get_num_threads() == 1
        """
    )
    pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert "OMP_NUM_THREADS" not in os.environ
