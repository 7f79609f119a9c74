"""NVML as the trainer takes it: values in their units, and every way in which it can be missing or fail."""
# ruff: noqa: N802 - the names are NVML's

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer import gpu
from trainer.gpu import FIGURES, Gpu

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class NvmlError(Exception):
    """As pynvml raises it."""


class Nvml:
    """As much of pynvml as is asked for; `broken` are functions that raise."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *broken: str, devices: int = 1) -> None:
        self.broken, self.devices, self.asked = set(broken), devices, 0

    def nvmlInit(self) -> None:
        self._refuse("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._refuse("nvmlDeviceGetHandleByIndex")
        return f"index {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:
        self.asked += 1
        self._refuse("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=97, memory=40)

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:
        self._refuse("nvmlDeviceGetPowerUsage")
        return 71_500

    def nvmlDeviceGetTemperature(self, _: str, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        self._refuse("nvmlDeviceGetTemperature")
        return 64

    def _refuse(self, function: str) -> None:
        if function in self.broken:
            raise NvmlError


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA device, as far as it is asked about itself."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="8b0c"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    at = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: at.now))
    return at


MEMORY = {"gpu_memory_gb": 5.0}
ALL = MEMORY | {"gpu_use_percent": 97.0, "gpu_power_w": 71.5, "gpu_temperature_c": 64.0}


def test_figures_come_in_percent_watts_and_degrees() -> None:
    assert Gpu(CUDA, Nvml()).read() == ALL
    assert Gpu(CUDA, Nvml()).memory_gb == 5.0


def test_nvml_is_asked_once_a_second_at_most(clock: SimpleNamespace) -> None:
    nvml = Nvml()
    meter = Gpu(CUDA, nvml)
    seen = []
    for clock.now in (1000.0, 1000.01, 1000.99, 1001.0, 1001.5, 1002.1):
        seen.append(meter.read() == ALL)
    assert seen == [True, False, False, True, False, True]
    assert nvml.asked == 3
    assert meter.read() == MEMORY


def test_on_the_cpu_nothing_is_asked_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    nvml = Nvml()
    assert Gpu(CPU, nvml).read() == {}
    assert Gpu(CPU).memory_gb is None
    assert nvml.asked == 0
    assert caplog.text == ""


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_where_nvml_does_not_start_training_goes_on_without_it(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    meter = Gpu(CUDA, Nvml(broken))
    assert [meter.read() for _ in range(3)] == [MEMORY] * 3
    assert caplog.text.count("the GPU's use is not known: NvmlError") == 1


def test_where_the_package_is_not_installed_training_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gpu(CUDA).read() == MEMORY
    assert "the GPU's use is not known: ModuleNotFoundError" in caplog.text


def test_the_package_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert Gpu(CUDA).read() == ALL


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", "gpu_use_percent"),
        ("nvmlDeviceGetPowerUsage", "gpu_power_w"),
        ("nvmlDeviceGetTemperature", "gpu_temperature_c"),
    ],
)
def test_what_a_gpu_does_not_tell_is_left_out_and_said_once(
    broken: str, missing: str, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = Nvml(broken)
    meter = Gpu(CUDA, nvml)
    for clock.now in (0.0, 1.0, 2.0):
        assert meter.read() == {name: value for name, value in ALL.items() if name != missing}
    assert caplog.text.count(f"{missing} cannot be read: NvmlError") == 1
    nvml.broken.clear()
    clock.now = 3.0
    assert meter.read() == ALL  # it failed for a while only


def test_of_several_gpus_the_one_that_is_trained_on_is_asked() -> None:
    asked: list[str] = []
    nvml = Nvml(devices=2)
    nvml.nvmlDeviceGetTemperature = lambda handle, _: asked.append(handle) or 64  # type: ignore[assignment, func-returns-value]
    assert Gpu(CUDA, nvml).read() == ALL
    assert asked == ["GPU-8b0c"]


def test_every_figure_is_of_the_installed_package() -> None:
    """The names that are asked for are NVML's."""
    pynvml = pytest.importorskip("pynvml")
    assert set(FIGURES) == set(ALL) - set(MEMORY)
    names = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert [name for name in [*names, "NVML_TEMPERATURE_GPU"] if not hasattr(pynvml, name)] == []
