"""What DVC's own configuration says about its remotes, read without DVC."""

import configparser
from collections.abc import Mapping
from pathlib import Path

from diffse.errors import DiffseError

# key of a DVC remote -> argument of boto3's client, and the variable that goes before it
_KEYS = {
    "endpointurl": ("endpoint_url", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
    "region": ("region_name", ("AWS_REGION", "AWS_DEFAULT_REGION")),
    "access_key_id": ("aws_access_key_id", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
    "secret_access_key": ("aws_secret_access_key", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
    "session_token": ("aws_session_token", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")),
}


def remotes(folder: Path) -> dict[str, dict[str, str]]:
    """Settings of each remote of the project that `folder` is in; {} outside a project.

    `.dvc/config.local`, which git ignores and which holds credentials, goes before `.dvc/config`.
    """
    home = next((place / ".dvc" for place in (folder, *folder.parents) if (place / ".dvc").is_dir()), None)
    if home is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    for name in ("config", "config.local"):
        try:
            parser.read(home / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            # the parser's text quotes the line, which may hold a secret
            raise DiffseError(f"{home / name}: not a DVC configuration; mend it with 'dvc remote'") from None
    sections = {title.strip("'"): values for title, values in parser.items()}
    return {
        title.removeprefix("remote ").strip('"'): dict(values)
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
