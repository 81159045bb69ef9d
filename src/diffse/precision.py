"""Arithmetic of the networks: float32, or bfloat16 where the machine has units for it."""

import contextlib
from typing import Literal

import torch

from diffse.errors import DiffseError

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """Context in which networks compute; what is no matrix product or convolution stays float32.

    `auto` is bfloat16 on a GPU and float32 on a CPU, where results would otherwise depend on the machine.
    DiffseError for bfloat16 on a CPU without units for it: it would be tens of times slower there.
    """
    if precision == "float32" or (precision == "auto" and device.type == "cpu"):
        return contextlib.nullcontext()
    if device.type == "cpu" and not cpu_has_bfloat16():
        raise DiffseError(
            "precision is bfloat16, but this CPU has no units for it (avx512_bf16 or amx_bf16) and would be "
            "many times slower; use precision float32, or a GPU"
        )
    return torch.autocast(device.type, torch.bfloat16)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers natively."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
