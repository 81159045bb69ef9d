"""Averages of any length after the training, from snapshots of a few (paper 001, section 2.3; EDM2).

An average of relative length std that ends at n samples weighs the weights of time t by its profile
p(t) = (gamma + 1) t^gamma / n^(gamma + 1), 0 < t <= n. The profile wanted is fitted, in least squares over all
t, by a sum of the profiles stored; the same sum of the snapshots is then the average wanted. How well the
profile is met is known before any snapshot is read, and says whether the average can be trusted.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffse.ema import LONGEST, PowerEMA, gamma_of
from diffse.errors import DiffseError
from diffse.storage import atomic_file, sha256_file

FOLDER = "snapshots"  # of a model, beside its checkpoints

# Largest relative error of the profile with which a reconstruction is given out. Below it, the directly tracked
# average that is nearest to the reconstruction is within 8 % of the length asked for (measured on random walks,
# on independent weights and on decaying gradient noise; snapshots of 0.05 and 0.10 at 8 to 32 even times).
LIMIT = 0.125

Profile = tuple[float, float]  # (samples seen at the end, relative length)

# Keeps the system solvable where two snapshots are a few steps of a long training apart; moves no coefficient
# of 16 snapshots by more than 1e-9.
_RIDGE = 1e-13

_NAME = re.compile(r"ema-(\d{12,})-(\d+(?:\.\d+)?(?:e-\d+)?)\.safetensors")
_NOTE = "diffse-ema-1"  # the one entry of the metadata: several are written in no fixed order


class Snapshot(NamedTuple):
    """One stored average: the samples seen when it was taken, its relative length, its file."""

    seen: int
    std: float
    path: Path


@dataclass(frozen=True)
class Plan:
    """How one average is put together, before a snapshot is opened.

    `coefficients` [len(snapshots)] sum to 1; `error` is the relative L2 error of the profile.
    """

    seen: int
    std: float
    snapshots: list[Snapshot]
    coefficients: np.ndarray
    error: float


def inner_product(n_a: ArrayLike, std_a: ArrayLike, n_b: ArrayLike, std_b: ArrayLike) -> np.ndarray:
    """Integral over t of p_a(t) p_b(t), in 1/samples; arguments broadcast (EDM2, appendix C)."""
    n_a, n_b = np.asarray(n_a, float), np.asarray(n_b, float)
    g_a, g_b = (np.vectorize(gamma_of, otypes=[float])(std) for std in (std_a, std_b))
    shorter = (n_a / n_b) ** np.where(n_a < n_b, g_b, -g_a)
    return (g_a + 1) * (g_b + 1) * shorter / ((g_a + g_b + 1) * np.maximum(n_a, n_b))


def coefficients(stored: Sequence[Profile], wanted: Sequence[Profile]) -> np.ndarray:
    """Weights of the stored averages in each average wanted, float64 [len(stored), len(wanted)].

    Both are lists of (samples seen, relative length). Columns sum to 1, or are NaN where no
    stored profile overlaps with the one wanted. They are the least-squares weights divided by their sum, as in
    EDM2. A profile stored twice is a ValueError.
    """
    if not stored or len(set(stored)) < len(stored):
        raise ValueError("give one or more stored profiles, each of them once")
    products = _products(stored)
    norm = np.sqrt(products.diagonal())[:, None]
    cosines = products / (norm * norm.T)
    cosines += _RIDGE * np.eye(len(stored))
    solution = np.linalg.solve(cosines, _products(stored, wanted) / norm) / norm
    for column, profile in enumerate(wanted):
        if profile in stored:  # exactly, without what rounding would mix in of the others
            solution[:, column] = np.arange(len(stored)) == stored.index(profile)
    with np.errstate(invalid="ignore"):  # 0/0: nothing stored overlaps with the profile wanted
        return solution / solution.sum(axis=0)


def profile_error(stored: Sequence[Profile], wanted: Sequence[Profile]) -> np.ndarray:
    """||sum_i c_i p_i - p|| / ||p|| of each profile wanted, [len(wanted)]: 0 is perfect, in closed form.

    It is also the relative error of an average over weights that are independent from step to step; of a
    smooth walk the error is smaller.
    """
    c = coefficients(stored, wanted)
    reached = (c * (_products(stored) @ c)).sum(axis=0)
    norm = np.array([inner_product(*profile, *profile) for profile in wanted])
    square = reached - 2 * (c * _products(stored, wanted)).sum(axis=0) + norm
    return np.sqrt(np.maximum(square, 0) / norm)


def _products(rows: Sequence[Profile], columns: Sequence[Profile] | None = None) -> np.ndarray:
    """Inner products of all rows with all columns (by default the rows)."""
    (n_a, s_a), (n_b, s_b) = (np.array(side, float).T for side in (rows, columns or rows))
    return inner_product(n_a[:, None], s_a[:, None], n_b, s_b)


def lengths(stored: Sequence[Profile], seen: int) -> list[tuple[float, float]]:
    """Intervals of relative lengths, in steps of 0.001, whose profile error at `seen` is within `LIMIT`."""
    grid = [thousandth / 1000 for thousandth in range(1, int(LONGEST * 1000) + 1)]
    possible = profile_error(stored, [(seen, std) for std in grid]) <= LIMIT
    edges = np.flatnonzero(np.diff(np.concatenate([[False], possible, [False]]).astype(int)))
    return [(grid[first], grid[end - 1]) for first, end in edges.reshape(-1, 2)]


def save_snapshot(folder: Path, ema: PowerEMA, seen: int) -> list[Path]:
    """Write the averages as they are after `seen` samples: one file for each length, each atomically.

    Always in the averages' own precision: in float16 the coefficients of a short length would blow up the
    rounding (by 9 for 0.02 from 16 times), and half as many times in float32 do better on the same disk.
    """
    if seen < 1:
        raise ValueError(f"no average ends at {seen} samples")
    paths = []
    for std, average in ema.averages.items():
        tensors = {name: value.cpu().contiguous() for name, value in {**average, **ema.buffers}.items()}
        note = {"seen": seen, "std": std, "buffers": sorted(ema.buffers)}
        note["sha256"] = _digest(tensors, note)
        paths.append(Path(folder, _name(seen, std)))
        with atomic_file(paths[-1]) as temporary:
            save_file(tensors, temporary, {_NOTE: json.dumps(note)})
    return paths


def _name(seen: int, std: float) -> str:
    return f"ema-{seen:012d}-{std}.safetensors"


def _digest(tensors: dict[str, Tensor], note: dict) -> str:
    """SHA-256 over everything in a snapshot; the file carries it, so that one file is one atomic whole."""
    digest = hashlib.sha256(json.dumps(note, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots of a folder in order of time and length; none where there is no folder."""
    matches = [(path, _NAME.fullmatch(path.name)) for path in Path(folder).glob("ema-*.safetensors")]
    found = [Snapshot(int(match[1]), float(match[2]), path) for path, match in matches if match]
    return sorted(each for each in found if each.path.name == _name(each.seen, each.std))


def plan(folder: Path, std: float, seen: int | None = None) -> Plan:
    """How the average of length `std` that ends at `seen` samples (by default the last snapshot's) is made.

    `seen` must be the time of a snapshot: a profile ends in a jump, which no sum of earlier ones has. Only
    snapshots up to there take part; the least-squares share of later ones is 0. A folder without any,
    and a length that they do not reach, are DiffseErrors that say what is possible.
    """
    there = snapshots(folder)
    if not there:
        raise DiffseError(f"{folder}: no snapshots of weight averages; train with power-function EMA first")
    seen = there[-1].seen if seen is None else seen
    used = [snapshot for snapshot in there if snapshot.seen <= seen]
    if not used:
        raise DiffseError(f"{folder}: no snapshot up to {seen} samples; the first is at {there[0].seen}")
    stored, wanted = [(each.seen, each.std) for each in used], [(seen, std)]
    error = float(profile_error(stored, wanted)[0]) if 0 < std < LONGEST else np.inf
    if not error <= LIMIT:
        raise DiffseError(_refusal(folder, std, seen, stored, error))
    return Plan(seen, std, used, coefficients(stored, wanted)[:, 0], error)


def _refusal(folder: Path, std: float, seen: int, stored: list[Profile], error: float) -> str:
    why = f"its profile would be {error:.1%} off, more than {LIMIT:.1%}" if error < np.inf else "out of reach"
    possible = " or ".join(f"{first:.3f} to {last:.3f}" for first, last in lengths(stored, seen))
    what = f"lengths of {possible}" if possible else f"the time of the last snapshot, {stored[-1][0]}"
    return f"{folder}: no average of length {std} at {seen} samples ({why}); possible: {what}"


def checksums(folder: Path, std: float, seen: int | None = None) -> dict[str, str]:
    """Snapshot -> SHA-256, of all that an average is made of; arguments and errors as those of `plan`."""
    return {each.path.name: sha256_file(each.path) for each in plan(folder, std, seen).snapshots}


def reconstruct(folder: Path, std: float, seen: int | None = None) -> dict[str, Tensor]:
    """Weights averaged over the relative length `std` up to `seen` samples, by name; see `plan`.

    Parameters are summed in float32 (float64 if stored so), with one snapshot in memory at a time; buffers are
    those of the last snapshot. A length that is stored comes back bit by bit, from its own file alone.
    What `plan` refuses, a damaged snapshot and one of another network are DiffseErrors.
    """
    made = plan(folder, std, seen)
    total: dict[str, Tensor] = {}
    for snapshot, coefficient in zip(made.snapshots, made.coefficients, strict=True):
        if coefficient == 0:
            continue
        tensors, buffers = _read(snapshot)
        if total and _shapes(tensors) != _shapes(total):
            raise DiffseError(f"{snapshot.path}: of another network than those before it; move it elsewhere")
        for name, value in tensors.items():
            if name in buffers:
                total[name] = value.clone()  # no longer a view of the file
            elif name in total:
                total[name].add_(value, alpha=float(coefficient))
            else:
                precise = torch.promote_types(value.dtype, torch.float32)
                total[name] = value.to(precise) * float(coefficient)
    return total


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _read(snapshot: Snapshot) -> tuple[dict[str, Tensor], set[str]]:
    """Tensors by name, and which of them are buffers. What is not as it was written is a DiffseError."""
    refusal = f"{snapshot.path}: damaged, renamed or no snapshot; restore it, or delete it to go on without it"
    try:
        with safe_open(snapshot.path, framework="pt") as stream:
            note = json.loads((stream.metadata() or {})[_NOTE])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
        intact = note.pop("sha256") == _digest(tensors, note)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DiffseError(f"{refusal} ({error})") from None
    if not intact or (note["seen"], note["std"]) != snapshot[:2]:
        raise DiffseError(refusal)
    return tensors, set(note["buffers"])
