"""Threads for processes that share cores."""

import subprocess
import sys

import pytest

from declai.worker.model import threads


def test_spinning_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(threads, "num_usable_cores", lambda: 8)
    assert [threads.pick_num_threads(count) for count in (1, 3, 8, 20)] == [8, 2, 1, 1]


def test_waiting_processes_may_use_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "num_usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert threads.pick_num_threads(3) == 8


def test_the_operators_own_policy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.use_passive_waiting()
    assert threads.pick_num_threads(1000) == 1


def test_the_policy_can_be_set_before_torch_is_loaded() -> None:
    use = "from declai.worker.model import threads; threads.use_passive_waiting()"
    code = f"import sys; {use}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)])
def test_a_control_groups_quota_is_read(tmp_path, text: str, cores: float | None) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "cpu.max").write_text(text)
    assert threads._cpu_quota(tmp_path / "cpu.max") == cores
    assert threads._cpu_quota(tmp_path / "absent") is None
