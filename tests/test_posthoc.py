"""Power-function averages, and averages of other lengths from their snapshots."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from diffse import posthoc
from diffse.ema import LONGEST, PowerEMA, gamma_of, power_beta, std_of
from diffse.errors import DiffseError
from diffse.posthoc import (
    LIMIT,
    coefficients,
    inner_product,
    lengths,
    plan,
    profile_error,
    reconstruct,
    save_snapshot,
    snapshots,
)

BATCH = 16
STDS = (0.05, 0.10)


class Walker(nn.Module):
    """Weights that are put where the walk is, and a buffer that counts the steps."""

    def __init__(self, row: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.w, self.b = (
            nn.Parameter(torch.empty(12, dtype=dtype)),
            nn.Parameter(torch.empty(3, 4, dtype=dtype)),
        )
        self.register_buffer("steps", torch.tensor(0))
        self.go(row)

    @torch.no_grad()
    def go(self, row: np.ndarray) -> None:
        self.w.copy_(torch.from_numpy(row[:12]))
        self.b.copy_(torch.from_numpy(row[12:]).view(3, 4))
        self.steps += 1


def track(walk, stds, folder=None, count=8, dtype=torch.float32, ema=None, first=0) -> PowerEMA:
    """Averages over a walk [steps, 24] from step `first` on, with `count` snapshots if there is a folder."""
    network = Walker(walk[0], dtype)
    network.steps.fill_(first)
    ema = ema or PowerEMA(network, stds)
    for step in range(first + 1, len(walk) + 1):
        network.go(walk[step - 1])
        ema.update(network, step * BATCH, BATCH)
        if folder and step % (len(walk) // count) == 0:
            save_snapshot(folder, ema, step * BATCH)
    return ema


def even(count: int, total: int = 32768) -> list[tuple[int, float]]:
    return [(total // count * k, std) for k in range(1, count + 1) for std in STDS]


@pytest.fixture(scope="module")
def toy(golden):
    """Numbers of the published post-hoc EMA on a random walk."""
    with np.load(golden / "phema_toy.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def random_walk() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1024, 24)).cumsum(axis=0)


@pytest.fixture(scope="module")
def walked(tmp_path_factory, random_walk):
    """A folder of eight times two snapshots of a random walk, and the averages at its end."""
    folder = tmp_path_factory.mktemp("snapshots")
    return folder, track(random_walk, STDS, folder)


def relative(actual, expected) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(abs(actual - expected).max() / abs(expected).max())


# The published numbers


def test_published_lengths_momenta_and_inner_products(toy):
    assert relative([std_of(gamma) for gamma in toy["exp_in"]], toy["exp_to_std"]) < 1e-9
    assert relative([gamma_of(std) for std in toy["std_in"]], toy["std_to_exp"]) < 1e-9
    betas = [[power_beta(std, int(seen), BATCH) for seen in toy["beta_t_next"]] for std in STDS]
    assert relative(betas, toy["beta"]) < 1e-9
    assert relative(inner_product(*toy["correlation_args"].T), toy["correlation"]) < 1e-9
    for std, expected in zip(toy["response_ofs100_std"], toy["response"], strict=True):
        times = np.arange(expected.size)
        profile = np.where(times <= 100, (times / 100) ** gamma_of(std), 0)
        assert relative(profile / profile.sum(), expected) < 1e-9


def test_published_averages_of_a_walk(toy, tmp_path):
    """In float32 at every snapshot, and in float64 for the lengths that are reconstructed elsewhere."""
    track(toy["walk"], STDS, tmp_path)
    for row, (seen, std) in enumerate(zip(toy["in_nimg"].tolist(), toy["in_std"].tolist(), strict=True)):
        stored = reconstruct(tmp_path, std, seen)
        assert relative(stored["w"], toy["snap_w"][row]) < 1e-6
        assert relative(stored["b"], toy["snap_b"][row]) < 1e-6
    exact = track(toy["walk"], tuple(toy["out_std"].tolist()), dtype=torch.float64)
    for std, average in exact.averages.items():
        assert relative(average["w"], toy[f"direct64_w_std{std:.3f}"]) < 1e-9
        assert relative(average["b"], toy[f"direct64_b_std{std:.3f}"]) < 1e-9


def test_published_coefficients(toy):
    stored = list(zip(toy["in_nimg"].tolist(), toy["in_std"].tolist(), strict=True))
    wanted = [(int(toy["out_nimg"]), std) for std in toy["out_std"].tolist()]
    assert abs(coefficients(stored, wanted) - toy["coefficients"]).max() < 1e-9


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_published_reconstructions(half, toy, tmp_path):
    ema = PowerEMA(Walker(toy["walk"][0]), STDS)
    for row, (seen, std) in enumerate(zip(toy["in_nimg"].tolist(), toy["in_std"].tolist(), strict=True)):
        for name in ("w", "b"):
            stored = torch.from_numpy(toy[f"snap_{name}"][row])
            ema.averages[std][name] = stored.half() if half else stored
        save_snapshot(tmp_path, ema, seen)
    for std in toy["out_std"].tolist():
        made = reconstruct(tmp_path, std)
        for name in ("w", "b"):
            assert made[name].dtype == torch.float32
            expected = toy[f"recon_{'fp16snap_' if half else ''}{name}_std{std:.3f}"]
            assert relative(made[name], expected) < 1e-6, (std, name)


# The mathematics


def integral(function, edges) -> float:
    """Integral of a function that is smooth between `edges`."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return sum((b - a) / 2 * weights @ function((a + b) / 2 + (b - a) / 2 * nodes) for a, b in spans)


def profile(t, seen, std):
    gamma = gamma_of(std)
    return np.where(t <= seen, (gamma + 1) / seen * (t / seen) ** gamma, 0)


@pytest.mark.parametrize("std", [0.003, 0.05, 0.1, 0.25, 0.288])
def test_length_is_the_standard_deviation_of_the_profile(std):
    edges = np.array([0, 1 - 10 * std, 1]) if std < 0.1 else np.array([0, 1e-4, 1])
    mean = integral(lambda t: t * profile(t, 1, std), edges)
    variance = integral(lambda t: (t - mean) ** 2 * profile(t, 1, std), edges)
    assert np.sqrt(variance) == pytest.approx(std, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b"), [((100, 0.05), (100, 0.1)), ((50, 0.2), (80, 0.03)), ((80, 0.1), (20, 0.1))]
)
def test_inner_product_is_the_integral(a, b):
    edges = np.array(sorted({0, a[0], b[0]}))
    assert inner_product(*a, *b) == pytest.approx(
        integral(lambda t: profile(t, *a) * profile(t, *b), edges), rel=1e-9
    )


@pytest.mark.parametrize("std", [0.01, 0.03, 0.075, 0.25])
def test_profile_error_is_the_error_of_the_sum_of_profiles(std):
    stored, wanted = even(8, 800), (800, std)
    c = coefficients(stored, [wanted])[:, 0]
    edges = np.linspace(0, 800, 9)
    square = integral(
        lambda t: (
            (sum(x * profile(t, *one) for x, one in zip(c, stored, strict=True)) - profile(t, *wanted)) ** 2
        ),
        edges,
    )
    expected = np.sqrt(square / integral(lambda t: profile(t, *wanted) ** 2, edges))
    assert profile_error(stored, [wanted])[0] == pytest.approx(expected, rel=1e-6)


def test_coefficients_sum_to_one_and_do_not_depend_on_the_order():
    stored, wanted = even(16), [(32768, std) for std in (0.02, 0.05, 0.08, 0.2)]
    c, order = coefficients(stored, wanted), np.random.default_rng(0).permutation(32)
    assert abs(c.sum(axis=0) - 1).max() < 1e-12
    shuffled = coefficients([stored[i] for i in order], wanted)
    assert abs(shuffled - c[order]).max() < 1e-9
    assert np.flatnonzero(c[:, 1]).tolist() == [stored.index((32768, 0.05))]
    with pytest.raises(ValueError, match="once"):
        coefficients([*stored, stored[3]], wanted)


@pytest.mark.parametrize("seen", [2**27, 2**30])
def test_two_snapshots_one_step_apart_do_no_harm(seen):
    """A training that ends just after a snapshot: in float64 the two cannot be told apart."""
    stored, wanted = even(16, seen), (seen + BATCH, 0.03)
    both = [*stored, *((seen + BATCH, std) for std in STDS)]
    assert profile_error(both, [wanted]) == pytest.approx(profile_error(stored, [(seen, 0.03)]), rel=1e-3)
    assert abs(coefficients(both, [wanted])).max() < abs(coefficients(stored, [wanted])).max() + 0.01


def test_first_step_is_taken_over_and_later_ones_follow_the_power_law():
    """The average of steps that are known is their sum with weights (k/n)^(gamma+1) - ((k-1)/n)^(gamma+1)."""
    walk = np.random.default_rng(1).standard_normal((40, 24))
    network = Walker(walk[0])
    ema = PowerEMA(Walker(100 + walk[0]), STDS)
    ema.update(network, BATCH, BATCH)
    assert torch.equal(ema.averages[0.05]["w"], network.w)
    ema = track(walk, STDS, dtype=torch.float64)
    for std in STDS:
        shares = np.diff((np.arange(41) / 40) ** (gamma_of(std) + 1))
        assert relative(ema.averages[std]["w"], shares @ walk[:, :12]) < 1e-12
    with pytest.raises(ValueError, match="32 samples"):
        ema.update(network, 16, 32)


def test_average_of_a_half_precision_network_is_kept_in_float32():
    """Steps far below the spacing of bfloat16 numbers must add up."""
    network = Walker(np.ones(24), torch.bfloat16)
    ema = PowerEMA(network, (0.1,))
    network.go(np.full(24, 1.0078125))
    for step in range(1000, 1010):
        ema.update(network, step * BATCH, BATCH)
    expected = 1.0078125 - 0.0078125 * (999 / 1009) ** (gamma_of(0.1) + 1)
    assert ema.averages[0.1]["w"][0].item() == pytest.approx(expected, abs=1e-6)
    ema.copy_to(network, 0.1)
    assert network.w.dtype == torch.bfloat16 and network.steps == 2
    with pytest.raises(DiffseError, match=r"0\.05: not tracked; tracked are 0\.1"):
        ema.copy_to(network, 0.05)


# Snapshots


def test_what_an_average_is_made_of_is_named_with_its_checksums(walked):
    folder, _ = walked
    named = posthoc.checksums(folder, 0.075)
    assert len(named) > 2
    assert named == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in named}
    assert posthoc.checksums(folder, 0.1, 512 * BATCH).items() <= named.items()


def test_stored_length_comes_back_bit_by_bit_with_the_buffers_of_its_time(walked):
    folder, ema = walked
    last = reconstruct(folder, 0.1)
    assert all(torch.equal(last[name], ema.averages[0.1][name]) for name in ("w", "b"))
    assert last["steps"] == 1024
    assert reconstruct(folder, 0.1, 512 * BATCH)["steps"] == 512
    network = Walker(np.zeros(24))
    network.load_state_dict(reconstruct(folder, 0.07))
    assert network.steps == 1024


@pytest.mark.parametrize("kind", ["independent", "walk"])
@pytest.mark.parametrize("count", [8, 32])
def test_every_length_given_out_is_the_length_asked_for(kind, count, tmp_path):
    """The directly tracked average that is nearest to the reconstruction is within 8 % of the length."""
    walk = np.random.default_rng(2).standard_normal((1024, 24))
    walk = walk if kind == "independent" else walk.cumsum(axis=0)
    track(walk, STDS, tmp_path, count)
    (shortest, longest), *others = lengths([each[:2] for each in snapshots(tmp_path)], 1024 * BATCH)
    assert not others and shortest < 0.03 and longest > 0.2
    near = np.geomspace(0.8, 1.25, 91)
    for std in (shortest, 0.04, 0.07, 0.15, longest):
        candidates = [ratio * std for ratio in near if ratio * std < LONGEST]
        powers = np.array([gamma_of(one) + 1 for one in candidates])[:, None]
        direct = np.diff((np.arange(1025) / 1024) ** powers) @ walk
        made = reconstruct(tmp_path, std)
        vector = np.concatenate([made["w"].numpy(), made["b"].numpy().ravel()])
        nearest = near[np.argmin(((direct - vector) ** 2).sum(axis=1))]
        assert abs(nearest - 1) < 0.08, (std, nearest)


def test_a_later_snapshot_does_not_change_an_earlier_reconstruction(walked, tmp_path):
    shutil.copytree(walked[0], tmp_path, dirs_exist_ok=True)
    for each in snapshots(tmp_path):
        if each.seen > 512 * BATCH:
            each.path.unlink()
    assert len(plan(walked[0], 0.06, 512 * BATCH).snapshots) == 8
    before, after = reconstruct(tmp_path, 0.06), reconstruct(walked[0], 0.06, 512 * BATCH)
    assert torch.equal(before["w"], after["w"])


def test_averages_continue_after_a_resume_as_if_nothing_had_been(random_walk, tmp_path):
    """Same state, and the same bytes in every later snapshot; a run of other lengths is refused."""
    whole = track(random_walk, STDS, tmp_path / "whole")
    part = track(random_walk[:700], STDS)
    torch.save(part.state_dict(), tmp_path / "ema.pt")
    state = torch.load(tmp_path / "ema.pt", weights_only=True)
    resumed = PowerEMA(Walker(random_walk[5]), STDS)
    resumed.load_state_dict(state)
    assert resumed.seen == 700 * BATCH
    track(random_walk, STDS, tmp_path / "resumed", ema=resumed, first=700)
    assert all(torch.equal(resumed.averages[std]["w"], whole.averages[std]["w"]) for std in STDS)
    later = snapshots(tmp_path / "resumed")
    assert len(later) == 6
    for each in later:
        assert each.path.read_bytes() == (tmp_path / "whole" / each.path.name).read_bytes()
    with pytest.raises(DiffseError, match=r"0\.05, 0\.1 and not 0\.05; give those"):
        PowerEMA(Walker(random_walk[0]), (0.05,)).load_state_dict(state)


# Refusals


def refused(folder, std, seen=None) -> str:
    with pytest.raises(DiffseError) as caught:
        reconstruct(folder, std, seen)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("std", [0, -0.1, 0.3, LONGEST, float("nan"), 0.01, 0.28])
def test_a_length_out_of_reach_is_refused_with_those_that_are_not(std, walked):
    assert "possible: lengths of 0.028 to 0.229" in refused(walked[0], std)


def test_lengths_at_the_edge_of_what_is_possible_are_given_out(walked):
    for std in (0.028, 0.229):
        assert LIMIT * 0.8 < plan(walked[0], std).error <= LIMIT
        reconstruct(walked[0], std)


def test_times_out_of_reach_are_refused(walked, tmp_path):
    assert "no snapshots" in refused(tmp_path, 0.05)
    assert "no snapshots" in refused(tmp_path / "absent", 0.05)
    assert "the first is at 2048" in refused(walked[0], 0.05, 2047)
    assert "possible: the time of the last snapshot, 16384" in refused(walked[0], 0.05, 10**9)
    assert "possible: the time of the last snapshot, 8192" in refused(walked[0], 0.05, 8208)


def test_a_folder_of_one_snapshot_gives_its_own_length(walked, tmp_path):
    last = snapshots(walked[0])[-1]
    shutil.copy(last.path, tmp_path)
    assert torch.equal(reconstruct(tmp_path, 0.1)["w"], reconstruct(walked[0], 0.1)["w"])
    assert "possible: lengths of 0.087 to 0.113" in refused(tmp_path, 0.05)


def test_any_damaged_byte_or_lost_end_is_noticed(walked, tmp_path):
    last = snapshots(walked[0])[-1]
    path = tmp_path / last.path.name
    whole = last.path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert str(path) in refused(tmp_path, 0.1), place
        path.write_bytes(whole[:place])
        assert "damaged" in refused(tmp_path, 0.1), place


def test_renamed_and_foreign_files_are_refused_or_ignored(walked, random_walk, tmp_path):
    shutil.copytree(walked[0], tmp_path, dirs_exist_ok=True)
    count = len(snapshots(tmp_path))
    for name in (
        ".ema-000000016384-0.1.77.partial.safetensors",
        "ema-000000016384-0.10.safetensors",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"half")
    assert len(snapshots(tmp_path)) == count
    middle = tmp_path / "ema-000000008192-0.1.safetensors"
    shutil.copy(tmp_path / "ema-000000006144-0.1.safetensors", middle)
    assert f"{middle}: damaged, renamed or no snapshot" in refused(tmp_path, 0.06)
    save_snapshot(tmp_path, PowerEMA(nn.Linear(2, 2), (0.1,)), 8192)
    assert f"{middle}: of another network" in refused(tmp_path, 0.06)
