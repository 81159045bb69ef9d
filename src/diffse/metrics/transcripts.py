"""What the user's recogniser hears in many utterances: one run of the program for all that are new."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from diffse.metrics import recognition, score_cache
from diffse.metrics.checks import Missing
from diffse.metrics.scoring import Plan, Utterance, checksum


def by_program(utterances: list[Utterance], plan: Plan) -> dict[str, str]:
    """Id -> transcript of those utterances that have words to compare with; {} when no program is to listen."""
    if "wer" not in plan.metrics or not plan.tools.recogniser.command:
        return {}
    keys = {name: _key(plan, wave, rate) for name, wave, rate in _signals(utterances)}
    cache = None if plan.cache is None else score_cache.opened(plan.cache)
    known = cache.get(keys.values()) if cache else {}
    heard = {name: known[key][1] for name, key in keys.items() if key in known}
    new = [utterance for utterance in utterances if utterance.id in keys.keys() - heard.keys()]
    if new:
        fresh = recognition.listen(_signals(new), plan.tools)
        if cache:
            cache.put({keys[name]: ([], text) for name, text in fresh.items()})
        heard |= fresh
    return heard


def _signals(utterances: list[Utterance]) -> Iterator[tuple[str, np.ndarray, int]]:
    """(id, enhanced [samples], Hz) of the utterances with a transcript whose signals can be read."""
    for utterance in utterances:
        if utterance.text:
            try:
                _, _, enhanced, rate = utterance.read()
            except Missing:
                continue
            yield utterance.id, enhanced, rate


def _key(plan: Plan, wave: np.ndarray, rate: int) -> str:
    depends = ["transcript", plan.tools.version("wer"), rate, checksum(wave)]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()
