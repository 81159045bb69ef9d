"""The state dict that EDM2SE publishes. It carries no settings: they are those of the published program."""

from diffse.errors import DiffseError
from diffse.importers import parts
from diffse.importers.lightning import Published
from diffse.importers.parts import Plan

_MULTIPLES = [1, 1, 2, 2, 2, 2, 2]  # of the channels of the first level
_ATTENTION = [16, 8]  # the published program's when it enhances; it trains with 16 alone
_NOTE = (
    "the file has no settings: skip 1 (noise prediction), sigma_x 0.402 and sigma_n 0.342 (VoiceBank-DEMAND) "
    "are the published program's; a checkpoint of other training data or with skip 0 needs its own"
)
_STFT = {"n_fft": 510, "hop": 128, "window": "hann", "exponent": 0.5}
_OBJECTIVE = {
    "name": "edm2se",
    "skip": 1,
    "sigma_x": 0.402,
    "sigma_n": 0.342,
    "l1_weight": 0.001,
    "c_in": "published",
    "weighting": "published",
    "across_batch": True,
}
_TRAINING = {
    "rate": 16000,
    "factor": 0.9375,  # 0.15 * 0.5 / 0.08
    "frames": 256,
    "peak_of": "utterance",
    "short": "repeat",
    "times": {"t_min": 0.02},
    "batch": 16,
    "betas": [0.9, 0.99],
    "steps": 1,  # not known
}
# The network is called at the time of the state, the last time at 0.02, and that call is the result.
_SAMPLER = {"name": "bridge_ode", "steps": 50, "t_eps": 0.0, "evaluate_at": "previous", "result": "estimate"}


def is_edm2se(published: Published) -> bool:
    """Whether the names are those of EDM2SE's network."""
    return "unet.emb_fourier.freqs" in published.state


def plan(published: Published) -> Plan:
    """Settings that repeat the published program for a state dict of EDM2SE."""
    frequencies = published.state.get("unet.emb_fourier.freqs")
    if frequencies is None or frequencies.ndim != 1:
        raise DiffseError(f"{published.source}: has no 'unet.emb_fourier.freqs'; it is no state dict of EDM2SE")
    channels = len(frequencies)
    network = {
        "name": "mp_adm",
        "model_channels": channels,
        "channel_mult": _MULTIPLES,
        "attn_resolutions": _ATTENTION,
        "channels_per_head": min(64, channels),
        "balance": "raw",
    }
    process = {"name": "sbve", "per_channel": True, "epsilon": 1e-8}
    train = {"process": process, "objective": _OBJECTIVE, "network": network, **_TRAINING}
    enhance = parts.whole_files(_SAMPLER, "reflection", "cut")
    return Plan("edm2se", train, _STFT, enhance, "", [_NOTE])
