"""Conv-TasNet (Luo and Mesgarani 2019), the non-causal form, with one source: a waveform denoiser."""

from torch import Tensor, nn


class ConvTasNet(nn.Module):
    """torchaudio's Conv-TasNet with a sigmoid mask and the settings that StoRM's baseline uses at 16 kHz.

    It maps waveforms, not spectrograms (`waveform`), so any transform fits (`freq_bins` 0) and any length.
    The defaults have 4,852,529 parameters. The published code has 4,918,193: 65,664 more, exactly a residual
    convolution of the last block, whose output nothing would read. It also pads more zeros and returns them, so
    that its output is longer than its input; here both are equally long.

    Args:
        inputs: waveforms that go in; only 1 is possible.
        enc_kernel_size: samples of a basis signal; they overlap by half.
        enc_num_feats: basis signals.
        msk_num_feats: channels between the blocks. msk_num_hidden_feats: channels inside a block.
        msk_kernel_size: taps of the dilated convolutions.
        msk_num_layers: blocks of a stack, with dilations 1, 2, 4, ... msk_num_stacks: stacks.

    Raises:
        ModuleNotFoundError: torchaudio, of diffse's extra `train`, is not installed.
    """

    waveform = True
    freq_bins = 0
    frame_multiple = 1

    def __init__(
        self,
        inputs: int = 1,
        enc_kernel_size: int = 32,
        enc_num_feats: int = 256,
        msk_num_feats: int = 128,
        msk_num_hidden_feats: int = 512,
        msk_kernel_size: int = 3,
        msk_num_layers: int = 8,
        msk_num_stacks: int = 3,
    ) -> None:
        super().__init__()
        if inputs != 1:
            raise ValueError(f"ConvTasNet takes 1 input, not {inputs}")
        if msk_kernel_size != 3:  # torchaudio pads as for 3 taps
            raise ValueError(f"msk_kernel_size of ConvTasNet must be 3, not {msk_kernel_size}")
        self.network = _torchaudio_class()(
            num_sources=1,
            enc_kernel_size=enc_kernel_size,
            enc_num_feats=enc_num_feats,
            msk_kernel_size=msk_kernel_size,
            msk_num_feats=msk_num_feats,
            msk_num_hidden_feats=msk_num_hidden_feats,
            msk_num_layers=msk_num_layers,
            msk_num_stacks=msk_num_stacks,
            msk_activate="sigmoid",
        )

    def forward(self, wave: Tensor) -> Tensor:
        """[B, 1, L] -> [B, 1, L], any L >= 1."""
        return self.network(wave)


def _torchaudio_class() -> type[nn.Module]:
    try:
        from torchaudio.models import ConvTasNet as Network
    except ModuleNotFoundError as error:
        message = "ConvTasNet needs torchaudio: install it with pip install 'diffse[train]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    return Network
