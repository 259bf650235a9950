from __future__ import annotations

import pytest

from saebench.api import MachineError, SuiteError
from saebench.measure.machine import check_device, host


@pytest.mark.parametrize("device", ["meta", "mps", "xla", "vulkan", "xpu:0"])
def test_a_device_that_torch_knows_and_saebench_does_not_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(SuiteError, match=rf"^--device {device}: .* kind .*Use cpu, cuda or cuda:N\.$"):
        check_device(device)


@pytest.mark.parametrize("device", ["", "nonsense", "cuda:-1", "cuda:x"])
def test_what_is_no_device_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(SuiteError, match="not a device"):
        check_device(device)


def test_a_number_beyond_the_devices_that_are_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(MachineError, match="only 2 CUDA devices are visible here"):
        check_device("cuda:2")


def test_the_host_says_which_instructions_numbers_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr("saebench.nn.kernels.backends._flags", lambda: frozenset({"avx512_bf16", "amx_bf16", "fma"}))
    assert host("cpu")["cpu_path"] == "AVX2, amx_bf16, avx512_bf16"
    monkeypatch.setattr("saebench.nn.kernels.backends._flags", lambda: frozenset({"fma"}))
    assert host("cpu")["cpu_path"] == "AVX2"
