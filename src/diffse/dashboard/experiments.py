"""DVC experiments: the commits that `dvc exp run` keeps under refs/exps, read with git."""

import datetime
import subprocess
from pathlib import Path

from diffse.dashboard.entries import EXPERIMENT, Entry, flat

_SECONDS = 10  # that git may take
_FORMAT = "%(refname)%09%(objectname)%09%(committerdate:iso-strict)"


def fetch(root: Path) -> list[Entry]:
    """Finished experiments with what they change in params.yaml; [] without git."""
    text = _git(root, "for-each-ref", f"--format={_FORMAT}", "refs/exps")
    entries = []
    for line in (text or "").splitlines():
        name, commit, date = line.split("\t")
        parts = name.split("/")  # refs/exps/<2 digits>/<38 digits>/<name>
        if len(parts) == 5:
            entries.append(_entry(root, parts[4], parts[2] + parts[3], commit, date))
    return entries


def _entry(root: Path, name: str, baseline: str, commit: str, date: str) -> Entry:
    return Entry(
        key=f"exp:{name}",
        kind=EXPERIMENT,
        title=name,
        state="ok",  # DVC keeps a commit of those alone that ended well
        started=datetime.datetime.fromisoformat(date).astimezone(datetime.UTC),
        code=commit[:8],
        pipeline=name,
        settings=changed(_params(root, baseline), _params(root, commit)),
        is_pipeline=True,
    )


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """Settings that differ from the baseline's, as they are in the experiment."""
    return {key: value for key, value in after.items() if before.get(key) != value}


def _params(root: Path, commit: str) -> dict[str, str]:
    import yaml

    text = _git(root, "show", f"{commit}:./params.yaml")
    try:
        return flat(yaml.safe_load(text or "") or {})
    except yaml.YAMLError:
        return {}


def _git(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", root, *command],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
