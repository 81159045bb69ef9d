"""Speak lines with espeak-ng: a program of its own, run once per voice by `espeak.py`.

espeak-ng keeps state between utterances that its own seed does not reset (phases of the flutter and of the
breath noise), so only a fresh process that speaks the same lines in the same order gives the same samples.
It needs the standard library alone, which lets it start in a few hundredths of a second.

Reads one JSON object on standard input: library, data, voice, lines (text, seed, pitch, range, speed).
Writes the rate as uint32, then for each line the number of samples as uint32 and the samples as int16.
"""

import ctypes
import json
import struct
import sys

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback in this thread; no sound device
_NO_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT
_SPEED, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_UTF8 = 1  # espeakCHARS_UTF8
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> None:
    """Answer one request; any failure ends with a message on standard error and exit status 1."""
    request = json.load(sys.stdin)
    library = ctypes.CDLL(request["library"])
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, request["data"].encode(), _NO_EXIT)
    if rate <= 0:
        sys.exit("espeak-ng does not start: its data folder is missing or of another version")
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        sys.exit(f"espeak-ng has no voice '{request['voice']}'")
    parts: list[bytes] = []

    @_CALLBACK
    def collect(samples, count, _events) -> int:
        if count > 0:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    out = sys.stdout.buffer
    out.write(struct.pack("<I", rate))
    for line in request["lines"]:
        parts.clear()
        _speak(library, line)
        audio = b"".join(parts)
        out.write(struct.pack("<I", len(audio) // 2) + audio)


def _speak(library: ctypes.CDLL, line: dict) -> None:
    ctypes.CDLL(None).srand(line["seed"])  # some of its noise comes from the C library's generator
    library.espeak_ng_SetRandSeed(line["seed"])
    for parameter, value in ((_SPEED, line["speed"]), (_PITCH, line["pitch"]), (_RANGE, line["range"])):
        library.espeak_SetParameter(parameter, value, 0)
    text = line["text"].encode() + b"\0"
    status = library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, _UTF8, None, None)
    if status != 0:
        sys.exit(f"espeak-ng cannot speak '{line['text']}' (status {status})")


if __name__ == "__main__":
    main()
