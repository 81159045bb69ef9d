"""What DVC's own files say about a project's remotes and artifacts, read without DVC."""

import configparser
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from diffse.errors import DiffseError

# key of a DVC remote -> argument of boto3's client, and the variables that go before it
_KEYS = {
    "endpointurl": ("endpoint_url", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
    "region": ("region_name", ("AWS_REGION", "AWS_DEFAULT_REGION")),
    "access_key_id": ("aws_access_key_id", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
    "secret_access_key": ("aws_secret_access_key", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
    "session_token": ("aws_session_token", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
}


def remotes(folder: Path) -> dict[str, dict[str, str]]:
    """Settings of each remote of the project that `folder` is in; {} outside a project."""
    sections = _configuration(folder)
    return {
        title.removeprefix("remote ").strip('"'): values
        for title, values in sections.items()
        if title.startswith("remote ")
    }


def remote_of(bucket: str, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Arguments of boto3's client from the remote in `bucket`, less what the environment says."""
    for values in remotes(folder).values():
        if values.get("url", "").removeprefix("s3://").split("/")[0] == bucket:
            return {
                argument: values[key]
                for key, (argument, variables) in _KEYS.items()
                if values.get(key) and not any(environment.get(name) for name in variables)
            }
    return {}


def project_of(folder: Path) -> Path:
    """The folder that holds `.dvc`: `folder` or one above it. DiffseError outside a project."""
    found = _home(folder.resolve())
    if found is None:
        raise DiffseError(f"{folder}: not inside a DVC project; run 'dvc init' in the project's folder")
    return found.parent


def default_remote(root: Path) -> str:
    """Location of the project's default remote in a store: `s3://bucket/prefix`."""
    found = remotes(root)
    name = _configuration(root).get("core", {}).get("remote") or (next(iter(found)) if len(found) == 1 else "")
    url = found.get(name, {}).get("url", "")
    if not url.startswith("s3://"):
        raise DiffseError(f"{root}: no default DVC remote in an S3 store; set one with 'dvc remote add -d'")
    return url.rstrip("/")


def content(root: Path, artifact: Path, read: Callable[[str], bytes]) -> dict[str, tuple[str, str]]:
    """File of a tracked folder -> (its location in the default remote, its MD5), as dvc.lock names it."""
    remote, version = default_remote(root), _locked(root, artifact)

    def place(md5: str) -> str:
        return f"{remote}/files/md5/{md5[:2]}/{md5[2:]}"

    listed = json.loads(read(place(version)))
    return {entry["relpath"]: (place(entry["md5"]), entry["md5"]) for entry in listed}


def _locked(root: Path, artifact: Path) -> str:
    """MD5 of a folder by dvc.lock, with DVC's suffix `.dir`."""
    import yaml

    try:
        lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
        stages = lock["stages"].values()
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        raise DiffseError(f"{root / 'dvc.lock'}: missing or damaged; take it from git") from None
    for stage in stages:
        for out in stage.get("outs", ()):
            if out.get("path") == artifact.as_posix() and str(out.get("md5", "")).endswith(".dir"):
                return out["md5"]
    raise DiffseError(f"{root / 'dvc.lock'}: does not name {artifact}; run its stage, or take it from git")


def _home(folder: Path) -> Path | None:
    return next((place / ".dvc" for place in (folder, *folder.parents) if (place / ".dvc").is_dir()), None)


def _configuration(folder: Path) -> dict[str, dict[str, str]]:
    """Sections of `.dvc/config`, overridden by `.dvc/config.local`, which git ignores: keys belong there."""
    home = _home(folder)
    if home is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    for name in ("config", "config.local"):
        try:
            parser.read(home / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            # the parser's text quotes the line, which may hold a secret
            raise DiffseError(f"{home / name}: not a DVC configuration; mend it with 'dvc remote'") from None
    return {title.strip("'"): dict(values) for title, values in parser.items()}
