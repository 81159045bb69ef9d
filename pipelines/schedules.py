"""Recurring runs: one schedule for each pipeline and experiment."""

import re
from typing import Any

import kfp_server_api

from diffse.errors import DiffseError
from pipelines.api import Api, Refused

# Kubeflow's fields of a time table: second, minute, hour, day of the month, month, day of the week.
_FIELDS = (
    ("second", 0, 59, ""),
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of the month", 1, 31, ""),
    ("month", 1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
    ("day of the week", 0, 6, "SUN MON TUE WED THU FRI SAT"),
)
_WORDS = ("@yearly", "@monthly", "@weekly", "@daily", "@hourly")
_EVERY = re.compile(r"@every (\d+h)?(\d+m)?(\d+s)?")
NONE = "none"  # takes the schedule away


def time_table(text: str) -> str:
    """A time table as Kubeflow wants it; the usual five fields are given second 0. Raises DiffseError."""
    text = " ".join(text.split())
    if text in _WORDS or (_EVERY.fullmatch(text) and text != "@every "):
        return text
    fields = text.split(" ")
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise DiffseError(
            f"--recurring '{text}': five fields are needed (minute, hour, day, month, day of the week), or six "
            f"with the second first, or one of {', '.join(_WORDS)}, '@every 6h'; '{NONE}' ends the schedule"
        )
    for value, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        if not all(_allowed(part, low, high, words.split()) for part in value.split(",")):
            raise DiffseError(
                f"--recurring '{text}': '{value}' is no {name} ({low} to {high}, *, */n, a-b, a,b)"
            )
    return " ".join(fields)


def _allowed(part: str, low: int, high: int, words: list[str]) -> bool:
    """Whether one part of a field (`*`, `5`, `MON-FRI`, `*/2`, `8-18/2`) is in its range."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    numbers = [words.index(end.upper()) + low if end.upper() in words else end for end in span.split("-")]
    if len(numbers) > 2 or not all(str(number).isdigit() for number in numbers):
        return False
    ends = [int(number) for number in numbers]
    return low <= ends[0] <= ends[-1] <= high


def replace(
    api: Api, name: str, cron: str, wanted: kfp_server_api.V2beta1RecurringRun
) -> tuple[Any, bool, int]:
    """Make `wanted` the only schedule called `name` in its experiment.

    Returns it, whether it was made now, and how many others had to go. It is there before they go: an
    evaluation may run twice, but is never left out.
    """
    wanted.display_name = name
    wanted.trigger = kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron))
    wanted.mode, wanted.max_concurrency, wanted.no_catchup = "ENABLE", "1", True

    def find() -> Any:
        return next((entry for entry in _all(api, name, wanted.experiment_id) if _same(entry, wanted)), None)

    def make() -> Any:
        return api.once(api.schedules.recurring_run_service_create_recurring_run, wanted)

    entry, made, _ = api.ensure(find, make)
    return entry, made, remove(api, name, wanted.experiment_id, keep=entry.recurring_run_id)


def remove(api: Api, name: str, experiment_id: str, keep: str = "") -> int:
    """Delete the schedules called `name`, but not `keep`; how many there were."""
    old = [entry for entry in _all(api, name, experiment_id) if entry.recurring_run_id != keep]
    for entry in old:
        try:
            api.read(api.schedules.recurring_run_service_delete_recurring_run, entry.recurring_run_id)
        except Refused as error:
            if error.status != 404:  # gone already: an answer of an earlier attempt was lost
                raise
    return len(old)


def _all(api: Api, name: str, experiment_id: str) -> list[Any]:
    request = api.schedules.recurring_run_service_list_recurring_runs
    return list(api.listing(request, "recurring_runs", name, experiment_id=experiment_id))


def _same(found: Any, wanted: kfp_server_api.V2beta1RecurringRun) -> bool:
    return (
        found.status != "DISABLED"
        and found.trigger is not None
        and found.trigger.cron_schedule is not None
        and found.trigger.cron_schedule.cron == wanted.trigger.cron_schedule.cron
        and found.pipeline_version_reference == wanted.pipeline_version_reference
        and ((found.runtime_config and found.runtime_config.parameters) or {})
        == (wanted.runtime_config.parameters or {})
    )
