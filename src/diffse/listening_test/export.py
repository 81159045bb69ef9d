"""Write a webMUSHRA test: configuration, stimuli at one loudness, and the key that only the experimenter keeps.

Layout of the folder:

    webmushra/configs/<name>.yaml                      to be copied over an installation of webMUSHRA
    webmushra/configs/resources/<name>/<trial>/*.wav   the file names do not tell the systems
    test.json                                          which condition is which system; not for the server
"""

import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffse import audio, paths, storage
from diffse.errors import DiffseError
from diffse.listening_test import anchor, selection
from diffse.report import listening, loudness
from diffse.report.artifacts import Enhanced, Mixtures, read_enhanced, read_mixtures
from diffse.settings import Params

KEY = "test.json"
FORMAT = 1
REFERENCE, LOW_ANCHOR = "reference", "anchor35"  # as webMUSHRA itself calls them
MAX_CONDITIONS = 12  # of a trial, by webMUSHRA and BS.1534
MAX_SECONDS = 12.0
_MIN_SECONDS = 1.0
_FADE_SECONDS = 0.01
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_INSTRUCTIONS = (
    "Please use headphones in a quiet room. On each page, rate every condition against the reference from 0 "
    "(bad) to 100 (excellent): distorted speech, noise that is left and sounds that were added all count. One "
    "of the conditions is the reference itself and should get 100."
)


@dataclass(frozen=True)
class Wanted:
    """What to export. systems: those of the project if empty."""

    corpus: str
    name: str
    systems: tuple[str, ...] = ()
    files: int = 10
    seed: int = 0
    seconds: float = MAX_SECONDS
    training: bool = True  # one more file before the test, whose ratings do not count


def run(params: Params, root: Path, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """Write the test into `folder`, which must be new or empty. Returns the content of its key.

    DiffseError: unknown corpus or system, too many conditions, audio that is not there.
    """
    _check(params, folder, wanted)
    systems = wanted.systems or _systems_of(params)
    mixtures = _mixtures(root, wanted.corpus)
    enhanced = {system: _enhanced(root, system, wanted.corpus) for system in systems}
    if len(systems) + 2 > MAX_CONDITIONS:
        raise DiffseError(
            f"{len(systems)} systems, the input and the anchor are more than {MAX_CONDITIONS} conditions; "
            "name fewer with --systems"
        )
    drawn = selection.draw(_usable(mixtures), wanted.files + wanted.training, wanted.seed)
    if not drawn:
        raise DiffseError(f"{mixtures.folder}: no test file of at least {_MIN_SECONDS:g} s")
    names = [f"trial{place:02d}" for place in range(1, len(drawn) + 1)]
    if wanted.training and len(drawn) > 1:
        names = ["training", *names[:-1]]
    trials = dict(zip(names, drawn, strict=True))
    keys = _keys(systems, wanted.seed)
    with storage.atomic_folder(folder) as partial:
        resources = Path("configs", "resources", wanted.name)
        for trial, item in trials.items():
            _write_trial(partial / "webmushra" / resources / trial, item, mixtures, enhanced, keys, wanted)
        key = _key(wanted, mixtures, trials, keys)
        config = _config(key, resources)
        storage.write_json(partial / KEY, key)
        _write_yaml(partial / "webmushra" / "configs" / f"{wanted.name}.yaml", config)
    return key


# ------------------------------------------------------------------------------------------ what is there


def _check(params: Params, folder: Path, wanted: Wanted) -> None:
    if wanted.corpus not in params.corpora:
        raise DiffseError(
            f"'{wanted.corpus}' is not one of the corpora selected (there: {', '.join(params.corpora)})"
        )
    if not _NAME.fullmatch(wanted.name):
        raise DiffseError(f"'{wanted.name}' cannot name a test; use small letters, digits, '-' and '_'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DiffseError(f"{folder}: is there already; name a new or empty folder")
    if wanted.files < 1 or not _MIN_SECONDS <= wanted.seconds <= MAX_SECONDS:
        raise DiffseError(f"give at least 1 file, and {_MIN_SECONDS:g} to {MAX_SECONDS:g} s of each")


def _systems_of(params: Params) -> tuple[str, ...]:
    trained = (f"{recipe}.{corpus}" for corpus in params.train_corpora for recipe in params.recipes)
    return (*trained, *params.externals)


def _mixtures(root: Path, corpus: str) -> Mixtures:
    mixtures = read_mixtures(root, corpus)
    if mixtures.table is None:
        raise DiffseError(f"{mixtures.folder}: no mixtures here; run 'diffse prepare {corpus}'")
    return mixtures


def _enhanced(root: Path, system: str, corpus: str) -> Enhanced:
    found = read_enhanced(root, system, corpus)
    if found.table is None:
        raise DiffseError(f"{found.folder}: no enhanced audio; run 'diffse enhance {system} {corpus}'")
    return found


def _usable(mixtures: Mixtures):
    table = mixtures.table
    return table[(table["split"] == "test") & (table["seconds"] >= _MIN_SECONDS)]


def _keys(systems: tuple[str, ...], seed: int) -> dict[str, str]:
    """Condition -> system. The names of conditions stand in the page that listeners can look into."""
    everything = [*systems, paths.UNPROCESSED]
    order = np.random.default_rng([seed, len(everything)]).permutation(len(everything))
    return {f"c{place + 1}": everything[index] for place, index in enumerate(order)}


# ---------------------------------------------------------------------------------------------- stimuli


def _write_trial(
    folder: Path,
    item: str,
    mixtures: Mixtures,
    enhanced: dict[str, Enhanced],
    keys: dict[str, str],
    wanted: Wanted,
) -> None:
    """Reference, anchor and every condition of one file, at one loudness."""
    row = mixtures.table.set_index("id", drop=False).loc[item].to_dict()
    rate = int(row["rate"])
    row["n_samples"] = min(int(row["n_samples"]), round(wanted.seconds * rate))
    signals = listening.read_signals(mixtures.folder, row, enhanced)
    missing = sorted(set(keys.values()) - signals.keys())
    if missing:
        raise DiffseError(f"{item}: no audio of {', '.join(missing)}; run its 'diffse enhance' again")
    waves = {REFERENCE: signals["clean"], LOW_ANCHOR: anchor.low_anchor(signals["clean"], rate)}
    waves |= {key: signals[system] for key, system in keys.items()}
    folder.mkdir(parents=True)
    for (name, wave), gain in zip(waves.items(), loudness.gains(list(waves.values()), rate), strict=True):
        audio.write(folder / f"{name}.wav", _faded(wave * np.float32(gain), rate), rate, "PCM_16")


def _faded(wave: np.ndarray, rate: int) -> np.ndarray:
    """Both ends ramped, because an excerpt that starts or ends within a sound clicks."""
    count = min(round(_FADE_SECONDS * rate), len(wave) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))).astype(np.float32)
    faded = wave.copy()
    faded[:count] *= ramp
    faded[len(wave) - count :] *= ramp[::-1]
    return faded


# ---------------------------------------------------------------------------------------- key and config


def _key(wanted: Wanted, mixtures: Mixtures, trials: dict[str, str], keys: dict[str, str]) -> dict[str, Any]:
    facts = mixtures.table.set_index("id")
    columns = [name for name in ("speaker", "gender", "noise_kind", "snr_db") if name in facts]
    described = [
        {"trial": trial, "id": item, **{name: _plain(facts.at[item, name]) for name in columns}}
        for trial, item in trials.items()
    ]
    made_of = f"{mixtures.sha256} {sorted(keys.items())} {sorted(trials.items())} {wanted.seconds}"
    number = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    return {
        "format": FORMAT,
        "name": wanted.name,
        "test_id": f"{wanted.name}-{number}",  # so that the ratings of another test are recognised
        "corpus": wanted.corpus,
        "data_version": mixtures.sha256,
        "seed": wanted.seed,
        "seconds": wanted.seconds,
        "conditions": keys,
        "trials": described,
    }


def _plain(value: Any) -> Any:
    """A JSON value; None for NaN."""
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 3)
    return str(value)


def _config(key: dict[str, Any], resources: Path) -> dict[str, Any]:
    """The experiment as webMUSHRA's YAML describes it."""
    pages = [_page(key, trial["trial"], resources) for trial in key["trials"]]
    training = [page for page in pages if page["id"] == "training"]
    tested = [page for page in pages if page["id"] != "training"]
    volume = (resources / key["trials"][0]["trial"] / f"{REFERENCE}.wav").as_posix()
    return {
        "testname": key["name"],
        "testId": key["test_id"],
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": True,
        "remoteService": "service/write.php",
        "pages": [
            {"type": "generic", "id": "welcome", "name": "Welcome", "content": html.escape(_INSTRUCTIONS)},
            {
                "type": "volume", "id": "volume", "name": "Volume", "stimulus": volume, "defaultVolume": 0.5,
                "content": "Set a comfortable volume, and leave it as it is then.",
            },
            *training,
            ["random", *tested],
            {
                "type": "finish", "name": "Thank you", "showResults": False, "writeResults": True,
                "content": "Please give a name or pseudonym and send your ratings.",
                "popupContent": "Your ratings were sent. Thank you.",
                "questionnaire": [{"type": "text", "label": "Name or pseudonym", "name": "listener"}],
            },
        ],
    }  # fmt: skip


def _page(key: dict[str, Any], trial: str, resources: Path) -> dict[str, Any]:
    folder = resources / trial
    text = "Training: these ratings do not count." if trial == "training" else "Rate every condition."
    return {
        "type": "mushra",
        "id": trial,
        "name": "Training" if trial == "training" else "Listening test",
        "content": text,
        "showWaveform": True,
        "enableLooping": True,
        "randomize": True,
        "showConditionNames": False,
        "createAnchor35": False,  # it is among the stimuli, at the loudness of the others
        "createAnchor70": False,
        "reference": (folder / f"{REFERENCE}.wav").as_posix(),
        "stimuli": {name: (folder / f"{name}.wav").as_posix() for name in (*key["conditions"], LOW_ANCHOR)},
    }


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    # yamljs, with which webMUSHRA reads it, takes the line breaks of a folded text for its own, and a list that
    # begins on the line of its dash for a text
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1_000_000)
    path.write_text(text.replace("\n- - ", "\n-\n  - "), encoding="utf-8")
