"""Read webMUSHRA's `mushra.csv` back: who rated what, who is left out, and what the ratings say.

Listeners are screened after ITU-R BS.1534-3, section 4.1.2: whoever rates the hidden reference below 90 in more
than 15 % of the trials is left out. A listener's ratings of one condition are averaged first, because
listeners, not ratings, are what is drawn at random; intervals and tests are over listeners.
"""

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffse import paths, storage
from diffse.errors import DiffseError
from diffse.listening_test.export import FORMAT, KEY, LOW_ANCHOR, REFERENCE
from diffse.metrics import statistics
from diffse.settings import Params

if TYPE_CHECKING:
    import pandas

NEEDED = ("session_test_id", "trial_id", "rating_stimulus", "rating_score")
COLUMNS = ("listener", "trial", "id", "system", "score")  # of ratings.csv
SCREEN_SCORE, SCREEN_SHARE = 90.0, 0.15
_TRAINING = "training"


def run(params: Params, root: Path, results: Path, test: Path) -> dict[str, Any]:
    """Write `<root>/results/listening/<name>/` (ratings.csv, summary.json) and return the summary.

    results: the CSV file that webMUSHRA wrote; test: the folder that `diffse listen export` wrote. Listeners
    are numbered: their names do not leave the file. DiffseError: damaged, of another test, or nobody left.
    """
    key = read_key(test)
    ratings = read(results, key)
    kept, left_out = screened(ratings, {trial["trial"] for trial in key["trials"]} - {_TRAINING})
    if kept.empty:
        raise DiffseError(
            f"{results}: no listener is left after screening ({'; '.join(one['reason'] for one in left_out)})"
        )
    summary = summarised(kept, key, params) | {"left_out": left_out}
    with storage.atomic_folder(paths.listening(root, key["name"])) as folder:
        ratings.to_csv(folder / "ratings.csv", index=False, columns=list(COLUMNS), lineterminator="\n")
        storage.write_json(folder / "summary.json", summary)
    return summary


def read_key(test: Path) -> dict[str, Any]:
    """test.json of an exported test; DiffseError when it is not one."""
    path = test / KEY if test.is_dir() else test
    if not path.is_file():
        raise DiffseError(f"{path}: no such file; give the folder that 'diffse listen export' wrote")
    key = storage.read_json(path)
    wanted = ("format", "name", "test_id", "corpus", "conditions", "trials")
    if not isinstance(key, dict) or any(name not in key for name in wanted) or key["format"] != FORMAT:
        raise DiffseError(f"{path}: not a test of this version; give the folder of 'diffse listen export'")
    return key


# ---------------------------------------------------------------------------------------------- ratings


def read(results: Path, key: dict[str, Any]) -> "pandas.DataFrame":
    """Ratings (COLUMNS), without those of the training. DiffseError names the line that is wrong."""
    import pandas

    lines = _lines(results)
    systems = {REFERENCE: REFERENCE, LOW_ANCHOR: LOW_ANCHOR, **key["conditions"]}
    items = {trial["trial"]: trial["id"] for trial in key["trials"]}
    listeners: dict[tuple[str, ...], str] = {}
    rows: dict[tuple[str, str, str], tuple] = {}
    for number, line in lines:
        where = f"{results}, line {number}"
        if line["session_test_id"] != key["test_id"]:
            raise DiffseError(
                f"{where}: a rating of the test '{line['session_test_id']}', not of '{key['test_id']}'"
            )
        trial, stimulus = line["trial_id"], line["rating_stimulus"]
        if trial not in items or stimulus not in systems:
            raise DiffseError(f"{where}: this test has no trial '{trial}' with a condition '{stimulus}'")
        listener = listeners.setdefault(_identity(line), f"L{len(listeners) + 1:02d}")
        if trial == _TRAINING:
            continue
        if (listener, trial, stimulus) in rows:
            raise DiffseError(f"{where}: listener {listener} rated {trial}, {stimulus} twice; keep one session")
        rows[listener, trial, stimulus] = (
            listener,
            trial,
            items[trial],
            systems[stimulus],
            _score(line, where),
        )
    if not rows:
        raise DiffseError(f"{results}: holds no ratings")
    return pandas.DataFrame(list(rows.values()), columns=list(COLUMNS))


def _lines(results: Path) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file with the columns that webMUSHRA writes."""
    try:
        text = results.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DiffseError(f"{results}: no such file; webMUSHRA writes results/<test id>/mushra.csv") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise DiffseError(f"{results}: not a text file; give webMUSHRA's mushra.csv") from None
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DiffseError(f"{results}: not a CSV file ({error}); give webMUSHRA's mushra.csv") from None
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise DiffseError(f"{results}: lacks the column {missing[0]}; give the mushra.csv of a MUSHRA test")
    for number, line in lines:
        if None in line or None in line.values():
            raise DiffseError(
                f"{results}, line {number}: has not as many cells as its heading; was it cut off?"
            )
    return lines


def _identity(line: dict[str, str]) -> tuple[str, ...]:
    """What tells listeners apart: the session's number where webMUSHRA wrote one, else their own answers."""
    if line.get("session_uuid"):
        return (line["session_uuid"],)
    names = list(line)
    return tuple(line[name] for name in names[: names.index("trial_id")])


def _score(line: dict[str, str], where: str) -> float:
    try:
        score = float(line["rating_score"])
    except ValueError:
        score = -1.0
    if not 0 <= score <= 100:
        raise DiffseError(f"{where}: '{line['rating_score']}' is not a rating from 0 to 100")
    return score


def screened(ratings: "pandas.DataFrame", trials: set[str]) -> tuple["pandas.DataFrame", list[dict[str, str]]]:
    """(ratings of the listeners who stay, [{"listener", "reason"}] of the others)."""
    left_out = []
    conditions = ratings["system"].nunique()
    for listener, own in ratings.groupby("listener", sort=True):
        hidden = own[own["system"] == REFERENCE]["score"]
        low = int((hidden < SCREEN_SCORE).sum())
        if len(own) < conditions * len(trials):
            reason = f"{listener} rated {len(own)} of {conditions * len(trials)} stimuli"
        elif low > SCREEN_SHARE * len(hidden):
            reason = f"{listener} rated the hidden reference below 90 in {low} of {len(hidden)} trials"
        else:
            continue
        left_out.append({"listener": str(listener), "reason": reason})
    gone = {one["listener"] for one in left_out}
    return ratings[~ratings["listener"].isin(gone)], left_out


# ---------------------------------------------------------------------------------------------- summary


def summarised(ratings: "pandas.DataFrame", key: dict[str, Any], params: Params) -> dict[str, Any]:
    """Means, intervals, quartiles and ranks of the conditions, best first, and every pair of systems.

    Reference and anchor say whether the test worked; they have no rank and take part in no pair.
    """
    by_listener = ratings.pivot_table(index="listener", columns="system", values="score", aggfunc="mean")
    report, how = params.report, params.evaluate
    settings = statistics.How(report.test, report.correction, how.confidence, how.bootstrap, how.seed)
    rated = [name for name in by_listener if name not in (REFERENCE, LOW_ANCHOR)]
    pairs = statistics.compare({name: by_listener[name].to_numpy() for name in rated}, settings)
    ranks = statistics.ranks(rated, pairs, report.alpha)
    conditions = [
        {
            "system": name,
            "rank": ranks.get(name),
            **_condition(ratings, by_listener[name].to_numpy(), name, params),
        }
        for name in by_listener.mean().sort_values(ascending=False, kind="stable").index
    ]
    return {
        "format": FORMAT,
        "name": key["name"],
        "test_id": key["test_id"],
        "corpus": key["corpus"],
        "listeners": len(by_listener),
        "trials": int(ratings["trial"].nunique()),
        "confidence": how.confidence,
        "conditions": conditions,
        "pairs": [_pair(pair, report.alpha) for pair in pairs],
    }


def _pair(pair: statistics.Comparison, alpha: float) -> dict[str, Any]:
    """JSON has no NaN: a size of the effect that there is not is None."""
    facts = dataclasses.asdict(pair) | {"better": pair.winner(alpha)}
    return facts | {"cohen": None if np.isnan(pair.cohen) else pair.cohen}


def _condition(
    ratings: "pandas.DataFrame", by_listener: np.ndarray, name: str, params: Params
) -> dict[str, float | int | None]:
    scores = ratings[ratings["system"] == name]["score"].to_numpy()
    first, median, third = np.quantile(scores, [0.25, 0.5, 0.75])
    low, high = listener_interval(by_listener, params.evaluate.confidence)
    found = {"mean": by_listener.mean(), "low": low, "high": high, "median": median, "q1": first, "q3": third}
    rounded = {key: None if value is None else round(float(value), 3) for key, value in found.items()}
    return rounded | {"n": len(scores)}


def listener_interval(means: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Student's t interval of the mean over listeners [n]; (None, None) for one listener."""
    from scipy import stats

    if len(means) < 2:
        return None, None
    half = stats.t.ppf(0.5 + confidence / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return max(0.0, float(means.mean() - half)), min(100.0, float(means.mean() + half))


def table(summary: dict[str, Any]) -> str:
    """The conditions as plain text, and who is not counted."""
    lines = [f"{summary['listeners']} listeners, {summary['trials']} trials of {summary['corpus']}"]
    lines.append(f"{'condition':<28} rank   mean  interval        median")
    for one in summary["conditions"]:
        interval = "" if one["low"] is None else f"{one['low']:.1f} to {one['high']:.1f}"
        start = f"{one['system']:<28} {one['rank'] or '-':>4}  {one['mean']:>5.1f}"
        lines.append(f"{start}  {interval:<14}  {one['median']:>6.1f}")
    return "\n".join([*lines, *(f"left out: {one['reason']}" for one in summary["left_out"])])
