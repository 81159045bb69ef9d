"""Shorten version 2, as in compressed sphere files: an encoder, and a decoder that is called as sph2pipe is.

From T. Robinson, SHORTEN: Simple lossless and near-lossless waveform compression (1994): Rice codes of the
samples themselves (function DIFF0), in blocks. Mono, 16 bits.
"""

import io
import sys
import wave
from pathlib import Path

BLOCK = 256
_TYPE = 5  # 16 bits, signed, little-endian
_DIFF0, _QUIT, _BLOCKSIZE = 0, 4, 5


class _Bits:
    def __init__(self) -> None:
        self.text = []

    def uvar(self, value: int, low: int) -> None:
        """Rice code: the high bits in unary, then `low` bits."""
        self.text.append(
            "0" * (value >> low) + "1" + (format(value & ((1 << low) - 1), f"0{low}b") if low else "")
        )

    def ulong(self, value: int) -> None:
        self.uvar(value.bit_length(), 2)
        self.uvar(value, value.bit_length())

    def done(self) -> bytes:
        text = "".join(self.text)
        text += "0" * (-len(text) % 32)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def encode(samples: list[int]) -> bytes:
    """A shorten stream of 16-bit samples."""
    bits = _Bits()
    for field in (_TYPE, 1, BLOCK, 0, 0, 0):  # type, channels, block, LPC order, blocks of the mean, skipped
        bits.ulong(field)
    for start in range(0, len(samples), BLOCK):
        block = samples[start : start + BLOCK]
        if len(block) < BLOCK:
            bits.uvar(_BLOCKSIZE, 2)
            bits.ulong(len(block))
        energy = max(1, (sum(map(abs, block)) // len(block) + 1).bit_length())
        bits.uvar(_DIFF0, 2)
        bits.uvar(energy, 3)
        for value in block:
            bits.uvar((~value << 1) | 1 if value < 0 else value << 1, energy + 1)
    bits.uvar(_QUIT, 2)
    return b"ajkg\x02" + bits.done()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.text, self.place = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b"), 0

    def uvar(self, low: int) -> int:
        one = self.text.index("1", self.place)
        high, self.place = one - self.place, one + 1 + low
        return (high << low) | (int(self.text[one + 1 : self.place], 2) if low else 0)

    def ulong(self) -> int:
        return self.uvar(self.uvar(2))


def decode(stream: bytes) -> list[int]:
    """Samples of a stream of `encode`."""
    bits, samples = _Reader(stream[5:]), []
    _, _, block, *_ = (bits.ulong() for _ in range(6))
    while (function := bits.uvar(2)) != _QUIT:
        if function == _BLOCKSIZE:
            block = bits.ulong()
            continue
        low = bits.uvar(3) + 1
        for _ in range(block):
            folded = bits.uvar(low)
            samples.append(~(folded >> 1) if folded & 1 else folded >> 1)
    return samples


def main(arguments: list[str]) -> int:
    """`sph2pipe -p -f wav FILE`: the file as WAV on standard output."""
    if arguments[:3] != ["-p", "-f", "wav"] or len(arguments) != 4:
        sys.stderr.write("Usage: sph2pipe [-p] [-f typ] infile\n")
        return 1
    data = Path(arguments[3]).read_bytes()
    try:
        samples = decode(data[1024:])
    except ValueError:
        sys.stderr.write(f"conversion failed for {arguments[3]}\n")
        return 1
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setparams((1, 2, 16000, len(samples), "NONE", ""))
        out.writeframes(b"".join(value.to_bytes(2, "little", signed=True) for value in samples))
    sys.stdout.buffer.write(held.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
