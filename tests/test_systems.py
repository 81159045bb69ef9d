"""Every system of the papers goes the whole way: training, its state, the checkpoint, enhancement."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
import torch
import yaml

from diffse import paths, presets, recipes, settings, training, training_inputs
from diffse.data import statistics
from diffse.data.batches import CropSource, MixtureWaves, WaveSource
from diffse.data.cache_reader import CacheReader
from diffse.enhancer import Enhancer
from diffse.errors import DiffseError
from diffse.spectrogram import Spectrogram

NAMES = [name for name in presets.table() if not name.endswith("_small")]
NETWORKS = {
    "ncsnpp": {"nf": 8, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "stem": 4,
               "bottleneck_attention": False, "zero_output": True},
    "mp_adm": {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [],
               "channels_per_head": 8, "stem": 4},
    "dcunet": {"channels": [2, 2, 2, 4, 4, 4]},
    "conv_tasnet": {"enc_num_feats": 16, "msk_num_feats": 8, "msk_num_hidden_feats": 16, "msk_num_layers": 2,
                    "msk_num_stacks": 1},
    "gagnet": {"channels": 4, "features": 16, "stages": 1, "squeeze": 4},
    "rvae": {"latent": 4, "hidden": 8},
}  # fmt: skip
SAMPLERS = {
    "pc": {"steps": 2}, "bridge_ode": {"steps": 2}, "direct": {}, "vem": {"iterations": 3},
    "em": {"steps": 2, "em_iterations": 2, "samples": 2, "likelihood_every": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A corpus of synthetic pairs with all tiny systems in its settings."""
    root = tmp_path_factory.mktemp("systems")
    tiny.make_project(root)
    plain = yaml.safe_load((root / "params.yaml").read_text())
    for name in NAMES:
        train = presets.table()[name].value["train"].value
        network = train["network"].value["name"].value
        plain["train"][name] = {
            "preset": name, "frames": 32, "batch": 2, "steps": 3, "warmup_steps": 0, "threads": 1,
            "checkpoint_every": 2, "validate_files": 1, "validate_every": 3, "rate": 16000, "lr": 1e-3,
            "network": {"name": network, **NETWORKS[network]},
        }  # fmt: skip
        if "predictor" in train:
            steps = train["predictor"].value.get("pretrain_steps")
            plain["train"][name]["predictor"] = {
                "network": {"name": "ncsnpp", **NETWORKS["ncsnpp"]}, "pretrain_steps": 1 if steps else 0,
            }  # fmt: skip
        if "power_ema" in train:
            plain["train"][name]["power_ema"] = {"snapshot_every": 1}
        if name == "m1_48k":  # the corpus has 16 kHz
            plain["train"][name]["network"]["stem"] = 8
        sampler = presets.table()[name].value["enhance"].value["sampler"].value["name"].value
        plain["enhance"][name] = {"preset": name, "sampler": {"name": sampler, **SAMPLERS[sampler]}}
    plain["recipes"] = NAMES
    (root / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    params = settings.load(root / "params.yaml")
    statistics.run(params, "toy", root)
    return root, params


@pytest.mark.parametrize("name", NAMES)
def test_every_system_trains_and_enhances(project, name):
    root, params = project
    summary = training.run(params, f"{name}.toy", root)
    assert summary["steps"] == 3
    assert np.isfinite(list(summary["best_validation"].values())).all()
    enhancer = Enhancer.from_checkpoint(paths.model(root, f"{name}.toy"))
    noisy = np.stack([tiny.voice(1, 0.7), tiny.voice(2, 0.7)])
    enhanced = enhancer(noisy, 16000)
    assert enhanced.shape == noisy.shape and np.isfinite(enhanced).all()
    alone = enhancer.many([noisy[1]], 16000, [""])[0]
    again = enhancer.many([noisy[1], noisy[0]], 16000, ["", ""])[0]
    np.testing.assert_allclose(again, alone, atol=2e-5 * np.abs(alone).max())
    stated = recipes.evaluations(enhancer.system.train, enhancer.system.enhance.sampler)
    assert enhancer.evaluations == stated > 0


def test_udiffse_enhances_with_proximal_steps(project):
    root, params = project
    training.run(params, "udiffse.toy", root)
    sampler = settings.EMProximal(steps=3, em_iterations=2, samples=2)
    enhancer = Enhancer.from_checkpoint(paths.model(root, "udiffse.toy"), sampler=sampler)
    noisy = tiny.voice(1, 0.7)
    enhanced = enhancer(noisy, 16000)
    assert np.isfinite(enhanced).all() and enhanced.shape == noisy.shape
    assert not np.allclose(enhanced, noisy, atol=1e-3)
    assert enhancer._counted.examples == enhancer.evaluations == 12


def resumed_weights(project, tmp_path, name: str, stop: int) -> tuple[dict, dict]:
    """Weights of a run that was stopped after `stop` steps and continued, and of one that was not."""
    root, params = project
    params = dataclasses.replace(
        params, train={name: dataclasses.replace(params.train[name], checkpoint_every=stop, validate_files=0)}
    )
    whole = root / "whole"
    results = []
    for folder in (whole, root / "stopped"):
        folder.mkdir(exist_ok=True)
        if not (folder / "data").exists():
            (folder / "data").symlink_to(root / "data")
        if folder.name == "stopped":
            save = training.Trainer._save

            def stopping(self, last, save=save):
                save(self, last)
                raise KeyboardInterrupt

            training.Trainer._save = stopping
            with pytest.raises(KeyboardInterrupt):
                training.run(params, f"{name}.toy", folder)
            training.Trainer._save = save
        training.run(params, f"{name}.toy", folder)
        from safetensors.torch import load_file

        results.append(load_file(paths.model(folder, f"{name}.toy") / "last" / "weights.safetensors"))
    return results[0], results[1]


@pytest.mark.parametrize("name", ["edm2se", "storm", "dcunet", "rvae"])
def test_a_stopped_run_ends_with_the_same_weights(project, tmp_path, name):
    whole, resumed = resumed_weights(project, tmp_path, name, 2)
    assert whole.keys() == resumed.keys()
    for key in whole:
        assert torch.equal(whole[key], resumed[key]), key


def test_power_function_averages_leave_snapshots_and_the_unaveraged_weights(project):
    root, params = project
    training.run(params, "edm2se.toy", root)
    folder = paths.model(root, "edm2se.toy")
    assert len(list((folder / "snapshots").iterdir())) == 6  # three times, two lengths
    average = Enhancer.from_checkpoint(folder, ema=0.1)
    raw = Enhancer.from_checkpoint(folder / "raw")
    a, b = (dict(item.system.network.named_parameters()) for item in (average, raw))
    assert any(not torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(DiffseError, match=r"0\.29"):
        Enhancer.from_checkpoint(folder, ema=0.29)


def test_levels_of_the_training_data_enter_the_preconditioning(project):
    root, params = project
    training.run(params, "edm2se.toy", root)
    found = statistics.read(paths.statistics(root, "toy"))
    objective = Enhancer.from_checkpoint(paths.model(root, "edm2se.toy")).system.objective
    assert objective.sigma_x == pytest.approx(0.9375 * found["sigma_x"], rel=1e-3)
    assert objective.sigma_n == pytest.approx(0.9375 * found["sigma_n"], rel=1e-3)


def test_levels_are_those_of_the_spectrograms(project):
    root, _ = project
    found = statistics.read(paths.statistics(root, "toy"))
    cache = CacheReader(paths.cache(root, "toy"), "train")
    clean, noisy = [], []
    for item in range(len(cache)):
        frames = int(cache.n_frames[item])
        X = np.asarray(cache.read(item, 0, frames), np.float64) / cache.peak(item, 0, frames, 1) ** 0.5
        clean.append(X[:, 0].ravel())
        noisy.append(X[:, 1].ravel())
    x, y = np.concatenate(clean), np.concatenate(noisy)
    assert found["sigma_x"] == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-4)
    assert found["sigma_n"] == pytest.approx(np.sqrt(np.mean((y - x) ** 2)), rel=1e-4)


def test_missing_levels_say_how_to_measure_them(project, tmp_path):
    root, params = project
    (tmp_path / "data" / "toy").mkdir(parents=True)
    for part in ("cache", "mixtures"):
        (tmp_path / "data" / "toy" / part).symlink_to(root / "data" / "toy" / part)
    with pytest.raises(DiffseError, match=r"statistics.json: missing; run 'diffse estimate toy'"):
        training.run(params, "edm2se.toy", tmp_path)


def test_learning_rate_of_edm2se_is_the_published_one(golden):
    law = json.loads((golden / "edm2se_losses.json").read_text())["lr_schedule"]
    train = settings.load("params.yaml").train["edm2se"]
    for samples, rate in ((samples, rate) for samples, rate in law.items() if int(samples) % 16 == 0):
        step = int(samples) // 16 - 1  # the table counts samples before the step, ours steps after it
        assert training_inputs.learning_rate(train, step) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("kind", ["cache", "wave"])
def test_the_peak_of_the_utterance_scales_every_crop_alike(project, kind):
    root, _ = project
    options = {"normalise": "noisy", "peak_of": "utterance"}
    if kind == "cache":
        source = CropSource(CacheReader(paths.cache(root, "toy"), "train"), 32, 0.15, 0, **options)
        plain = CropSource(CacheReader(paths.cache(root, "toy"), "train"), 32, 0.15, 0, normalise="none")
    else:
        source = WaveSource(MixtureWaves(paths.mixtures(root, "toy"), "train"), Spectrogram(), 32, 0, **options)
        plain = WaveSource(
            MixtureWaves(paths.mixtures(root, "toy"), "train"), Spectrogram(), 32, 0, normalise="none"
        )
    gains: dict[str, set] = {}
    for k in range(12):
        scaled, original = source.sample(k)[1], plain.sample(k)[1]
        utterance = source.ids[source.order.item(k)]
        gains.setdefault(utterance, set()).add(round(float(scaled.norm() / original.norm()), 2))
    assert all(len(found) == 1 for found in gains.values())


@pytest.mark.parametrize("kind", ["cache", "wave"])
def test_a_short_utterance_is_repeated(project, kind):
    root, _ = project
    if kind == "cache":
        source = CropSource(CacheReader(paths.cache(root, "toy"), "train"), 200, 0.15, 0, short="repeat")
    else:
        source = WaveSource(
            MixtureWaves(paths.mixtures(root, "toy"), "train"), Spectrogram(), 200, 0, short="repeat"
        )
    clean, _ = source.sample(0)
    frames = 1 + 16000 // 128
    assert torch.equal(clean[:, frames : frames + 50], clean[:, :50])
    assert clean[:, frames:].abs().max() > 0
