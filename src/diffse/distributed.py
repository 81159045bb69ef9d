"""One process or several (torchrun): the only code that knows how many there are."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(hours=4)  # the others wait while the first process validates


class Processes:
    """Context of a training run. Reads RANK, LOCAL_RANK and WORLD_SIZE as torchrun sets them."""

    def __init__(self, threads: int = 0) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device(f"cuda:{local}" if torch.cuda.is_available() else "cpu")
        if threads:
            torch.set_num_threads(threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.set_float32_matmul_precision("high")

    def __enter__(self) -> "Processes":
        if self.world > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def wrap(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """The module whose gradients are averaged over processes; `unused`: a step may leave some without."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=unused)

    def mean(self, value: Tensor) -> float:
        """Mean of a scalar over processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
            value = value / self.world
        return float(value)

    def agree(self, value: int) -> bool:
        """Whether the value is the same in all processes."""
        if self.world == 1:
            return True
        ends = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return int(ends[0]) == value == -int(ends[1])

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()
