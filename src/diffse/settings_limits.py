"""The range of every setting that is a number, by its name: one name means one thing in all blocks."""

import math

# name -> (lowest, highest) allowed value. What is not here may be any number.
_POSITIVE = (1e-12, math.inf)
_COUNT = (1, math.inf)
_NOT_NEGATIVE = (0, math.inf)
_SHARE = (0, 1)

LIMITS: dict[str, tuple[float, float]] = {
    # corpora and gates
    "rate": (1000, 192000),
    "utterances_per_voice": _COUNT,
    "noise_seconds": _POSITIVE,
    "max_rejected": _SHARE,
    "speaker_shares": _SHARE,
    "processes": _NOT_NEGATIVE,
    "min_seconds": _NOT_NEGATIVE,
    "channel": _COUNT,
    "car_ends": _NOT_NEGATIVE,
    "seconds": _POSITIVE,
    "highpass_hz": _NOT_NEGATIVE,
    "test_bins": _NOT_NEGATIVE,
    "arni_responses": _COUNT,
    "max_seconds": _POSITIVE,
    "snr_tolerance_db": _NOT_NEGATIVE,
    "max_clipped": _SHARE,
    "sample_utterances": _COUNT,
    "max_missing": _SHARE,
    "input_tolerance": _NOT_NEGATIVE,
    # rooms
    "t60": (0.05, 10),
    "length": (1, 100),
    "width": (1, 100),
    "height": (1, 100),
    "wall_distance": _NOT_NEGATIVE,
    "distance": _NOT_NEGATIVE,
    "max_order": (0, 30),
    "share": _SHARE,
    "early_ms": _NOT_NEGATIVE,
    "max_t60": _POSITIVE,
    "tail_seconds": (0, 60),
    "level_db": (-60, 60),
    "band_share": _SHARE,
    "band_hz": (100, 96000),
    "codec_share": _SHARE,
    "compression": (0, 0.95),
    # transform, processes and networks
    "n_fft": (4, 65536),
    "hop": _COUNT,
    "exponent": (1e-3, 1),
    "shard_mb": _COUNT,
    "sigma_min": _POSITIVE,
    "sigma_max": _POSITIVE,
    "k": _POSITIVE,
    "c": _POSITIVE,
    "epsilon": _NOT_NEGATIVE,
    "l1_weight": _NOT_NEGATIVE,
    "nf": (4, math.inf),
    "ch_mult": _COUNT,
    "num_res_blocks": _COUNT,
    "freq_bins": _COUNT,
    "stem": _COUNT,
    "dropout": (0, 0.999),
    "pesq_weight": _NOT_NEGATIVE,
    "sigma_data": _POSITIVE,
    "sigma_x": _POSITIVE,
    "sigma_n": _POSITIVE,
    "beta": _NOT_NEGATIVE,
    "model_channels": _COUNT,
    "channel_mult": _COUNT,
    "num_blocks": _COUNT,
    "channels_per_head": _COUNT,
    "channels": _COUNT,
    "embedding_layers": _COUNT,
    "features": _COUNT,
    "stages": _COUNT,
    "squeeze": _COUNT,
    "latent": _COUNT,
    "hidden": _COUNT,
    # training
    "factor": _POSITIVE,
    "frames": (2, math.inf),
    "t_min": (0, 0.999),
    "at_end": _SHARE,
    "batch": _COUNT,
    "steps": _COUNT,
    "lr": _POSITIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "decay_from": _SHARE,
    "gradient_clip": _NOT_NEGATIVE,
    "ema_decay": (0, 0.9999999),
    "betas": (0, 0.9999999),
    "inverse_sqrt_from": _NOT_NEGATIVE,
    "stds": _POSITIVE,
    "use": _NOT_NEGATIVE,
    "snapshot_every": _COUNT,
    "pretrain_steps": _NOT_NEGATIVE,
    "supervision": _NOT_NEGATIVE,
    "threads": _NOT_NEGATIVE,
    "checkpoint_every": _COUNT,
    "validate_every": _COUNT,
    "validate_files": _NOT_NEGATIVE,
    # sampling, evaluation and report
    "corrector_steps": _NOT_NEGATIVE,
    "t_eps": (0, 0.999),
    "rtol": _POSITIVE,
    "atol": _POSITIVE,
    "last_dt": _POSITIVE,
    "em_iterations": _COUNT,
    "iterations": _COUNT,
    "samples": _COUNT,
    "rank": _COUNT,
    "nmf_updates": _COUNT,
    "likelihood_weight": _NOT_NEGATIVE,
    "likelihood_every": _COUNT,
    "first_likelihood": _COUNT,
    "corrector_scale": _NOT_NEGATIVE,
    "restart": (0.01, 1),
    "gradient_steps": _COUNT,
    "ema": _POSITIVE,
    "files": _NOT_NEGATIVE,
    "parameters": _NOT_NEGATIVE,
    "timeout_seconds": _POSITIVE,
    "chunk_seconds": _POSITIVE,
    "overlap_seconds": _NOT_NEGATIVE,
    "confidence": (0.5, 0.9999),
    "bootstrap": (10, 10_000_000),
    "listen_files": _NOT_NEGATIVE,
}


def outside(name: str, value: float) -> str:
    """What is wrong with the value of a setting, "" when nothing is."""
    low, high = LIMITS.get(name, (-math.inf, math.inf))
    if low <= value <= high:
        return ""
    if high == math.inf:
        bound = "more than 0" if low == _POSITIVE[0] else f"at least {low:g}"
    else:
        bound = f"from {low:g} to {high:g}"
    return f"is {value!r}; give {bound}"
