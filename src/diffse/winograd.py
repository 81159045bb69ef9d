"""Large 3 x 3 convolutions in float32 by Winograd's algorithm, on CPUs where that is faster.

Six by six outputs at a time take 64 products instead of 324 (Lavin and Gray 2016, F(6 x 6, 3 x 3)); the
transforms around them cost part of that again. PyTorch brings the algorithm with NNPACK, for outputs alone.
The gradient of the input is a convolution like it. The gradient of the filters is summed here, along t by the
same algorithm: two places at a time take 4 products instead of 6. Outputs differ from the direct ones by about
5e-6 of their size; gradients of filters are nearer to the true ones than those of the direct way.
"""

import functools
import os

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

VARIABLE = "DIFFSE_WINOGRAD"  # 0: direct convolutions alone
CHANNELS = 128  # in and out; with fewer, or with fewer places,
PLACES = 1536  # F T of an example, the transforms cost more than they save
_PAIRS = 4096  # of places that one matrix product sums for the gradient of the filters


@functools.cache
def available() -> bool:
    """Whether this process may use it: not forbidden, NNPACK there, and a CPU whose widest units are AVX2.

    With wider units the direct convolution of PyTorch is faster, and NNPACK does not use them.
    """
    if os.environ.get(VARIABLE) == "0" or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return False
    return torch._nnpack_available()  # also makes NNPACK ready, without which its convolution fails


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Same-size convolution of x [B, c_in, F, T] with filters [c_out, c_in, k, k], k odd: [B, c_out, F, T]."""
    if _is_served(x, weight):
        return _Convolution.apply(x, weight, bias)
    return nnf.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class Conv2d(nn.Conv2d):
    """Same-size convolution with stride 1 through `conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias)


def memory_format(network: nn.Module) -> torch.memory_format:
    """Order in which a CPU runs the network fastest without gradients.

    Direct convolutions like "channels last", which Winograd's algorithm cannot take.
    """
    filters = (p for p in network.parameters() if p.ndim == 4)
    served = available() and any(_is_large(weight) for weight in filters)
    return torch.contiguous_format if served else torch.channels_last


def _is_large(weight: Tensor) -> bool:
    return min(weight.shape[:2]) >= CHANNELS and weight.shape[2:] == (3, 3)


def _is_served(x: Tensor, weight: Tensor) -> bool:
    if not _is_large(weight) or x.shape[-2] * x.shape[-1] < PLACES:
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.is_contiguous():
        return False
    return not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")) and available()


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolved(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad_x = _convolved(grad, weight.flip(2, 3).transpose(0, 1)) if of_x else None
        grad_weight = _filter_gradient(grad, x) if of_weight else None
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if of_bias else None


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One example at a time: NNPACK's way for batches is slower than the direct convolution."""
    weight = weight.contiguous()
    done = [torch._nnpack_spatial_convolution(one, weight, bias, [1, 1]) for one in x.split(1)]
    return torch.cat(done) if len(done) > 1 else done[0]


def _filter_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Sum over places (f, t) of grad(f, t) x(f + a - 1, t + b - 1): [c_out, c_in, 3, 3] over a and b.

    grad [B, c_out, F, T] is the gradient of the outputs, x [B, c_in, F, T] the input, zero beyond its edges.

    Rows of frequency are taken a few at a time, so that what is made of them stays in the cache. In every row
    the places are pairs; with pairs d of grad and neighbouring pairs e, g of x the three sums over b are made
    of d_0 (e_0 - g_0), (d_0 + d_1) (e_1 + g_0), (d_0 - d_1) (g_0 - e_1) and d_1 (e_1 - g_1).
    """
    (batch, c_out, f, frames), c_in = grad.shape, x.shape[1]
    width = (frames + 3) // 2  # pairs in a row of x with a zero on either side
    rows = -(-_PAIRS // width)
    sums = x.new_zeros(3, 4, c_out, c_in)
    for n in range(batch):
        for first in range(0, f, rows):
            last = min(first + rows, f)
            edges = (int(first == 0), int(last == f))  # rows of zeros
            first_x, second_x = _pairs(x[n, :, max(first - 1, 0) : last + 1], 1, width, edges)
            d_0, d_1 = _pairs(grad[n, :, first:last], 0, width)
            e_0, e_1, g_0, g_1 = first_x[:, :-1], second_x[:, :-1], first_x[:, 1:], second_x[:, 1:]
            left, right = grad.new_empty(4, *d_0.shape), x.new_empty(4, *e_0.shape)
            left[0], left[3] = d_0, d_1
            torch.add(d_0, d_1, out=left[1])
            torch.sub(d_0, d_1, out=left[2])
            torch.sub(e_0, g_0, out=right[0])
            torch.add(e_1, g_0, out=right[1])
            torch.sub(g_0, e_1, out=right[2])
            torch.sub(e_1, g_1, out=right[3])
            places = d_0.shape[1] - 1  # the last pair of a row of grad is padding
            for a in range(3):
                shifted = right[..., a * width : a * width + places]
                sums[a].baddbmm_(left[..., :places], shifted.mT)
    sums[:, 1:3] /= 2
    one, two, three, four = sums.unbind(1)
    return torch.stack([one + two + three, two - three, two + three - four], -1).permute(1, 2, 0, 3)


def _pairs(x: Tensor, zeros: int, width: int, edges: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """First and second places of all pairs of x [C, F, T]: 2 x [C, (F + edges) width], zeros around.

    `zeros` of them come before every row, and as many as `width` pairs need after it.
    """
    padded = nnf.pad(x, (zeros, 2 * width - zeros - x.shape[-1], *edges))
    return padded.view(len(x), -1, 2).permute(2, 0, 1).contiguous().unbind(0)
