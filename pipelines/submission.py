"""Start a compiled pipeline on a cluster: checked first, uploaded once, and never started twice.

A pipeline is uploaded as a version named by the checksum of its content, so that an unchanged one uploads
nothing. Each start has an id, which is kept in the project before anything is sent and stands in the name of
the run: whoever repeats a start that was cut off, at whatever point, looks for that name first.
"""

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api

from diffse import __version__, paths, storage
from diffse.endings import user_errors
from diffse.errors import DiffseError
from pipelines import credentials, following, graph, preflight, schedules
from pipelines import placement as places
from pipelines.api import Api, Patience, Refused
from pipelines.package import Package, parameters

PATIENCE = Patience()


@dataclass(frozen=True)
class Built:
    """What a front end hands over: a project, and the pipeline that was compiled from it."""

    project: graph.Project
    package: Package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `--submit`, `--check` and `--status`."""
    group = parser.add_argument_group("on a cluster")
    group.add_argument("--host", metavar="URL", help="Kubeflow Pipelines (or variable KF_PIPELINES_ENDPOINT)")
    group.add_argument("--namespace", metavar="NS", help="yours, where there are several users")
    group.add_argument("--experiment", default="diffse", metavar="NAME", help="groups runs (default: diffse)")
    group.add_argument("--wait", action="store_true", help="follow the run; exit with 1 if it fails")
    group.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the pipeline")
    group.add_argument("--recurring", metavar="CRON", help="run by a time table ('0 3 * * 1'), or 'none'")
    group.add_argument("--submission-id", metavar="ID", help="never start a second run with this id")
    group.add_argument("--skip", action="append", default=[], choices=preflight.NAMES, help="leave a check out")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust")
    credentials.add_arguments(group)


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where options do not go together."""
    args.host = args.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    remote = args.submit or args.check or args.status
    if remote and not args.host:
        parser.error(f"--{'status' if args.status else 'submit' if args.submit else 'check'} needs --host")
    if args.recurring and (args.wait or args.submission_id or not args.submit):
        parser.error("--recurring goes with --submit, without --wait and --submission-id")
    if args.wait and not (args.submit or args.status):
        parser.error("--wait goes with --submit or --status")
    if args.submission_id and not re.fullmatch(r"[\w.-]{1,60}", args.submission_id):
        parser.error("--submission-id: letters, digits, '_', '-' and '.', at most 60")


def connect(args: argparse.Namespace) -> Api:
    """The API that the options name."""
    return Api(args.host, args.namespace or "", credentials.choose(args), args.ca_file, PATIENCE)


def status(args: argparse.Namespace) -> int:
    """Print the state of a run, or follow it; the exit code."""
    args.namespace = args.namespace or places.load(args.placement).namespace
    api = connect(args)
    if args.wait:
        return following.follow(api, args.status)
    api.patience = dataclasses.replace(api.patience, attempts=3)
    return following.show(api, args.status)


def submit(args: argparse.Namespace, build: Callable[[Path], Built]) -> int:
    """Check, upload and start; `build` compiles into a folder. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="diffse-") as folder:
        cron = schedules.time_table(args.recurring) if args.recurring not in (None, schedules.NONE) else None
        built, values = _checked(args, build, Path(folder))
        if args.check:
            return 0
        api = connect(args)
        if args.recurring:
            return _schedule(api, args, built, values, cron)
        run = _start(api, args, built, values)
    print(f"run {run.run_id}: {following.page(api.page_host, run.run_id)}", flush=True)
    return following.follow(api, run.run_id) if args.wait else 0


def _checked(
    args: argparse.Namespace, build: Callable[[Path], Built], folder: Path
) -> tuple[Built, dict[str, Any]]:
    """The pipeline and its parameters, once no check has failed. Raises DiffseError."""
    built, values, failure = None, {}, None
    try:
        built = build(folder)
        args.namespace = args.namespace or built.project.placement.namespace
        values = parameters(built.package, args.parameter)
    except DiffseError as error:
        failure = error

    def settings_check() -> str:
        if failure is not None:
            raise failure
        return f"{args.params}, {built.package.version}"

    groups = [[("settings", settings_check)], preflight.Cluster(lambda: connect(args)).checks()]
    if built is not None:
        groups += [[check] for check in preflight.images(built.package.images, cached=built.project.caching)]
        placement = built.project.placement
        written = (placement.pipeline_root, placement.environment.get("DIFFSE_RUNS", ""))
        groups += [[check] for check in preflight.storages(built.project.params, *written)]
        if built.package.corpora:
            groups.append(preflight.sources(built.project, built.package.corpora))
    outcomes = preflight.run(groups, args.skip)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in outcomes:
        print(outcome, file=sys.stderr if outcome in failed else sys.stdout, flush=True)
    if failed:
        names = ", ".join(outcome.check for outcome in failed)
        raise DiffseError(f"nothing was uploaded: {len(failed)} of {len(outcomes)} checks failed ({names})")
    return built, values


# ------------------------------------------------------------------------------------ upload and start


def _experiment(api: Api, name: str) -> str:
    """Id of an experiment, which is made if there is none."""
    request = api.experiments.experiment_service_list_experiments
    wanted = kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace or None)
    return api.ensure(
        lambda: next(api.listing(request, "experiments", name, namespace=api.namespace), None),
        lambda: api.once(api.experiments.experiment_service_create_experiment, wanted),
    )[0].experiment_id


def _version(api: Api, package: Package) -> kfp_server_api.V2beta1PipelineVersionReference:
    """The version of a pipeline with this content, which is uploaded if there is none."""
    request = api.pipelines.pipeline_service_list_pipelines
    wanted = kfp_server_api.V2beta1Pipeline(
        name=package.name, display_name=package.name, namespace=api.namespace or None
    )
    pipeline, _, _ = api.ensure(
        lambda: next(api.listing(request, "pipelines", package.name, namespace=api.namespace), None),
        lambda: api.once(api.pipelines.pipeline_service_create_pipeline, wanted),
    )
    versions = api.pipelines.pipeline_service_list_pipeline_versions
    names = {"name": package.version, "display_name": package.version, "pipelineid": pipeline.pipeline_id}
    names["description"] = f"diffse {__version__}, sha256 {package.sha256}"
    version, uploaded, _ = api.ensure(
        lambda: next(
            api.listing(versions, "pipeline_versions", package.version, pipeline_id=pipeline.pipeline_id), None
        ),
        lambda: api.once(api.uploads.upload_pipeline_version, str(package.path), **names),
    )
    print(f"version {package.version}: {'uploaded' if uploaded else 'is there already'}")
    return kfp_server_api.V2beta1PipelineVersionReference(
        pipeline_id=pipeline.pipeline_id, pipeline_version_id=version.pipeline_version_id
    )


def _start(api: Api, args: argparse.Namespace, built: Built, values: dict[str, Any]) -> Any:
    """Start a run, or find the one that a start before, which was cut off, has made."""
    package = built.package
    key = {"host": api.host, "namespace": api.namespace, "experiment": args.experiment}
    key |= {"version": package.version, "parameters": values}
    with user_errors(), _claimed(args, package.name, key) as number:
        reference = _version(api, package)
        experiment = _experiment(api, args.experiment)
        name = f"{package.name} {number}"
        wanted = kfp_server_api.V2beta1Run(
            experiment_id=experiment,
            display_name=name,
            description=f"submission {number} by diffse {__version__}",
            pipeline_version_reference=reference,
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values),
            service_account=built.project.placement.service_account or None,
        )

        def find() -> Any:
            return min(_runs(api, name, experiment), key=_age, default=None)

        run, made, unanswered = api.ensure(find, lambda: api.once(api.runs.run_service_create_run, wanted))
        if unanswered:
            run = _keep_one(api, name, experiment) or run
        if run.pipeline_version_reference and run.pipeline_version_reference != reference:
            raise DiffseError(f"the id {number} is that of run {run.run_id} of another version; choose another")
        print(f"{'started' if made else 'had been started before'}: {name}")
        return run


def _runs(api: Api, name: str, experiment: str) -> Iterator[Any]:
    return api.listing(api.runs.run_service_list_runs, "runs", name, experiment_id=experiment)


def _age(run: Any) -> tuple[str, str]:
    return (str(run.created_at), run.run_id)


def _keep_one(api: Api, name: str, experiment: str) -> Any:
    """End the younger of two runs: a request that was given up as lost had been at work after all."""
    found = sorted(_runs(api, name, experiment), key=_age)
    for run in found[1:]:
        with contextlib.suppress(Refused):  # it has ended by itself
            api.read(api.runs.run_service_terminate_run, run.run_id)
        print(f"run {run.run_id} was a second one of {name}, made by a request without answer; it is ended")
    return found[0] if found else None


def _schedule(
    api: Api, args: argparse.Namespace, built: Built, values: dict[str, Any], cron: str | None
) -> int:
    """Set or end the time table of a pipeline."""
    package = built.package
    experiment = _experiment(api, args.experiment)
    if cron is None:
        ended = schedules.remove(api, package.name, experiment)
        print(f"{package.name}: {'the schedule is ended' if ended else 'there was no schedule'}")
        return 0
    wanted = kfp_server_api.V2beta1RecurringRun(
        experiment_id=experiment,
        namespace=api.namespace or None,
        description=f"by diffse {__version__}",
        pipeline_version_reference=_version(api, package),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values),
        service_account=built.project.placement.service_account or None,
    )
    entry, made, replaced = schedules.replace(api, package.name, cron, wanted)
    print(f"{package.name} at '{cron}': {'set' if made else 'unchanged'}")
    if replaced:
        print(
            f"it takes the place of {replaced} in experiment '{args.experiment}'; --experiment NAME keeps both"
        )
    print(f"schedule {entry.recurring_run_id}: {api.page_host}/#/recurringrun/details/{entry.recurring_run_id}")
    return 0


# -------------------------------------------------------------------------------------- cut off between


@contextlib.contextmanager
def _claimed(args: argparse.Namespace, name: str, key: dict[str, Any]) -> Iterator[str]:
    """The id of a start, kept until the start is known to have succeeded.

    A start of the same version to the same place that was cut off before gives its id to the next one.
    """
    folder = paths.runs(args.params.parent) / ".submissions"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    file = folder / f"{name}-{digest[:16]}.json"
    with storage.exclusive_lock(folder, "a submission"):
        number = args.submission_id or (storage.read_json(file)["id"] if file.exists() else _new_id())
        if not args.submission_id:
            storage.write_json(file, {"id": number, **key})
        yield number
        file.unlink(missing_ok=True)


def _new_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
