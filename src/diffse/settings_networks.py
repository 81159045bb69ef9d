"""Settings of networks, one dataclass each. Defaults are the published sizes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NCSNpp:
    """NCSN++. The defaults are the published network of 65,590,822 parameters."""

    name: Literal["ncsnpp"] = "ncsnpp"
    nf: int = 128  # channels of the first level
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)  # channels of each level, times nf
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)  # frequency bins of the levels with attention
    freq_bins: int = 256
    pyramid: bool = True  # input and output skip pyramids
    bottleneck_attention: bool = True
    output_scaling: Literal["none", "before", "after"] = "none"  # divide by t before/after the last layer
    stem: int = 1  # neighbouring frequency bins folded into channels (1: as published)
    dropout: float = 0.0
    fourier_scale: float = 16.0
    zero_output: bool = False  # start from output 0 instead of the published random bias
    conditional: bool = True  # False: no time embedding (predictive systems)
    centered: bool = True  # False: the input goes through 2x - 1, as StoRM's code does


@dataclass(frozen=True)
class MPADM:
    """Magnitude-preserving ADM (EDM2) of EDM2SE, 71,209,059 parameters as published."""

    name: Literal["mp_adm"] = "mp_adm"
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    num_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    channels_per_head: int = 64
    freq_bins: int = 256
    stem: int = 1
    balance: Literal["sigmoid", "raw"] = "sigmoid"  # of the conditioning; raw: as published
    dropout: float = 0.0


@dataclass(frozen=True)
class DCUNet:
    """Deep complex U-Net with dilations (the first SGMSE paper), 3,531,970 parameters."""

    name: Literal["dcunet"] = "dcunet"
    freq_bins: int = 257
    channels: tuple[int, ...] = (32, 32, 32, 64, 128, 256)
    conditional: bool = True
    embedding_layers: int = 1


@dataclass(frozen=True)
class ConvTasNet:
    """Conv-TasNet: a mask over a learnt basis, waveform to waveform."""

    name: Literal["conv_tasnet"] = "conv_tasnet"
    enc_kernel_size: int = 32
    enc_num_feats: int = 256
    msk_num_feats: int = 128
    msk_num_hidden_feats: int = 512
    msk_kernel_size: int = 3
    msk_num_layers: int = 8
    msk_num_stacks: int = 3


@dataclass(frozen=True)
class GaGNet:
    """Glance and gaze: magnitude and complex branches side by side, in stages."""

    name: Literal["gagnet"] = "gagnet"
    freq_bins: int = 256
    channels: int = 64
    features: int = 448
    stages: int = 3
    squeeze: int = 64  # channels of the temporal modules


@dataclass(frozen=True)
class RVAE:
    """Recurrent variational autoencoder of clean power spectra."""

    name: Literal["rvae"] = "rvae"
    freq_bins: int = 256
    latent: int = 16
    hidden: int = 128
    features: Literal["power", "log"] = "power"  # what the encoder sees


Network = NCSNpp | MPADM | DCUNet | ConvTasNet | GaGNet | RVAE
