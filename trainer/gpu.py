"""What the GPU does meanwhile, as NVML tells it. A figure, never a condition: training goes on without it."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)

READ_EVERY_S = 1.0
"""NVML averages the use over up to a second, and asking costs some milliseconds."""
Figure = Callable[[Any, Any], float]
"""(NVML, device) → its value."""
FIGURES: dict[str, Figure] = {
    "gpu_use_percent": lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device).gpu,
    "gpu_power_w": lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) / 1000,
    "gpu_temperature_c": lambda nvml, device: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
}


class Gpu:
    """The GPU that is trained on; on the CPU it says nothing."""

    def __init__(self, device: torch.device, nvml: Any = None) -> None:
        """`nvml` is the module, imported where it is not given."""
        self._is_there = device.type == "cuda"
        self._nvml: Any = None
        self._handle: Any = None
        if self._is_there:
            self._nvml, self._handle = _find(device, nvml)
        self._read_at = -READ_EVERY_S
        self._silent: set[str] = set()
        """Figures that could not be read once; told once each."""

    @property
    def memory_gb(self) -> float | None:
        """Peak of what PyTorch allocated so far, in GB of 10⁹ bytes."""
        return torch.cuda.max_memory_allocated() / 1e9 if self._is_there else None

    def read(self) -> dict[str, float]:
        """What there is to say now, under the names of the curve; of NVML's figures nothing within a second of the
        last."""
        memory_gb = self.memory_gb
        figures = {} if memory_gb is None else {"gpu_memory_gb": memory_gb}
        now = time.monotonic()
        if self._nvml is None or now - self._read_at < READ_EVERY_S:
            return figures
        self._read_at = now
        for name, figure in FIGURES.items():
            try:
                figures[name] = float(figure(self._nvml, self._handle))
            except Exception as error:  # some GPUs do not tell all, and some tell it not always
                if name not in self._silent:
                    log.warning("%s cannot be read: %s", name, type(error).__name__)
                self._silent.add(name)
        return figures


def _find(device: torch.device, nvml: Any) -> tuple[Any, Any]:
    """NVML and the device in it; nothing where either is missing. CUDA and NVML may count devices differently."""
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        if nvml.nvmlDeviceGetCount() == 1:
            return nvml, nvml.nvmlDeviceGetHandleByIndex(0)
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
    except Exception as error:
        log.warning("the GPU's use is not known: %s", type(error).__name__)
        return None, None
