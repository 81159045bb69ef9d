"""Non-negative matrix factorisation V = W H of noise power, fitted under the Itakura-Saito divergence.

Power P and its model V are [B, 1, F, T], columns W [B, 1, F, r], activations H [B, 1, r, T], all real and
positive; every file of a batch has its own W and H and is fitted by itself. (Févotte, Bertin and Durrieu,
"Nonnegative matrix factorization with the Itakura-Saito divergence", Neural Computation 21(3), 2009.)
"""

from collections.abc import Callable

import torch
from torch import Tensor

FLOOR = 1e-10  # of every entry of W and H: an entry that reached 0 could never grow again


def divergence(P: Tensor, V: Tensor) -> Tensor:
    """sum P/V - ln(P/V) - 1 per file, for positive P and V of one shape: [B, ...] -> [B]."""
    ratio = P / V
    return (ratio - torch.log(ratio) - 1).flatten(1).sum(1)


def initial(draw: Callable[[], Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """W and H uniform on (0, 1), made of complex noise `draw()` [B, 1, F, T] with E|z|^2 = 1.

    |z|^2 is then exponentially distributed and exp(-|z|^2) uniform.
    """
    W = _uniform(draw, rank, axis=-1)
    return W, _uniform(draw, rank, axis=-2)


def _uniform(draw: Callable[[], Tensor], rank: int, axis: int) -> Tensor:
    parts = [draw()]
    while sum(part.shape[axis] for part in parts) < rank:
        parts.append(draw())
    return torch.exp(-torch.cat(parts, axis).narrow(axis, 0, rank).abs().square())


def update(
    P: Tensor, W: Tensor, H: Tensor, added: Tensor | None = None, exponent: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One multiplicative update of W, then of H, then columns of W scaled to sum 1 (V stays as it is).

    `added` [B, 1, F, T] is power that the model has besides W H and that stays fixed; one more leading axis
    holds samples of it, over which the expected divergence is lowered. An `exponent` of 1/2 is proven never
    to raise the divergence; 1 (the 2009 paper) goes further per update and has not been seen to raise it.
    """
    numerator, denominator = slopes(P, _model(W, H, added))
    W = _raised(W, numerator @ H.mT, denominator @ H.mT, exponent)
    numerator, denominator = slopes(P, _model(W, H, added))
    H = _raised(H, W.mT @ numerator, W.mT @ denominator, exponent)
    scale = W.sum(-2, keepdim=True)
    return W / scale, H * scale.mT


def fitted(P: Tensor, W: Tensor, H: Tensor, updates: int) -> tuple[Tensor, Tensor]:
    """W and H after several updates."""
    for _ in range(updates):
        W, H = update(P, W, H)
    return W, H


def slopes(P: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """P / V^2 and 1 / V, the falling and the rising part of the divergence's slope in V.

    V may have one more leading axis than P: samples, over which both are averaged.
    """
    inverse = 1 / V.clamp_min(FLOOR**1.5)  # its square must stay finite in single precision
    numerator, denominator = P * inverse * inverse, inverse
    return (numerator.mean(0), denominator.mean(0)) if V.ndim > P.ndim else (numerator, denominator)


def _model(W: Tensor, H: Tensor, added: Tensor | None) -> Tensor:
    return W @ H if added is None else W @ H + added


def _raised(factor: Tensor, numerator: Tensor, denominator: Tensor, exponent: float) -> Tensor:
    ratio = numerator / denominator
    return (factor * (ratio if exponent == 1 else ratio**exponent)).clamp_min(FLOOR)
