"""A stand-in for Kubeflow Pipelines (v2beta1) on loopback, strict about what it is sent.

Bodies must be what kfp-server-api's models hold, without another key; pipelines must be what the protocol
buffers of Kubeflow define. What it does not prove: rules that only the real server has.
"""

import datetime
import io
import itertools
import json
import re
from typing import Any

import kfp_server_api
import yaml
from google.protobuf import json_format
from http_stand_in import Answer, Request, StandIn
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from werkzeug.formparser import parse_form_data

API = "/apis/v2beta1"
FILTERS = {1: "EQUALS", 9: "IS_SUBSTRING"}
KEYS = {"display_name", "name", "description", "created_at", "storage_state", "state"}


class Wrong(Exception):
    """A request that the real server would refuse."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def checked(kind: str, value: Any) -> Any:
    """Refuse what a model of kfp-server-api does not hold: other keys, other types, unknown words."""
    if value is None or kind == "object":
        return value
    if kind.startswith("list["):
        return [checked(kind[5:-1], item) for item in value]
    if kind.startswith("dict("):
        inner = kind[5:-1].partition(", ")[2]
        return {key: checked(inner, item) for key, item in value.items()}
    if kind == "datetime":
        return datetime.datetime.fromisoformat(value)
    plain = {"str": str, "int": int, "bool": bool, "float": float}.get(kind)
    if plain is not None:
        if not isinstance(value, plain):
            raise Wrong(400, f"{value!r} is no {kind}")
        return value
    model = getattr(kfp_server_api, kind)
    if hasattr(model, "allowable_values") and model.allowable_values:
        if value not in model.allowable_values:
            raise Wrong(400, f"{value!r} is none of {model.allowable_values}")
        return value
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    unknown = set(value) - set(names)
    if unknown:
        raise Wrong(400, f"{kind} has no {sorted(unknown)}")
    return model(**{names[key]: checked(model.openapi_types[names[key]], item) for key, item in value.items()})


def checked_package(content: bytes) -> dict:
    """Parse an uploaded file strictly, both documents; the first one."""
    spec, *more = yaml.load_all(content, yaml.CSafeLoader)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    for document in more:
        for executor in document["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    return {"pipeline_spec": spec, **({"platform_spec": more[0]} if more else {})}


class Server(StandIn):
    """Experiments, pipelines, versions, runs and schedules, kept in memory.

    `users`: secret (as in the header) -> namespaces; empty: one user, no login.
    """

    def __init__(self, users: dict[str, set[str]] | None = None, page_size: int = 2) -> None:
        self.users, self.page_size = users or {}, page_size
        self.experiments: dict[str, dict] = {}
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.schedules: dict[str, dict] = {}
        self.files: list[bytes] = []
        self.terminated: list[str] = []
        self._numbers = itertools.count(1)
        super().__init__()

    def handle(self, request: Request) -> Answer:
        try:
            if request.path == f"{API}/healthz":
                return Answer(body={"multi_user": bool(self.users), "pipeline_store": "database"})
            self._login(request)
            for method, pattern, work in self._ROUTES:
                found = re.fullmatch(API + pattern, request.path)
                if found and method == request.method:
                    return Answer(body=work(self, request, *found.groups()))
            raise Wrong(404, f"no {request.method} {request.path}")
        except Wrong as wrong:
            return Answer(wrong.status, {"error": str(wrong), "code": wrong.status, "message": str(wrong)})

    # ------------------------------------------------------------------------------------------- rights

    def _login(self, request: Request) -> None:
        if self.users and self._secret(request) not in self.users:
            raise Wrong(401, "Request header error: there is no user identity header.")

    @staticmethod
    def _secret(request: Request) -> str:
        return request.headers.get("authorization", request.headers.get("cookie", ""))

    def _namespace(self, request: Request, namespace: str) -> str:
        if not self.users:
            return ""
        if not namespace:
            raise Wrong(400, "Namespace is required in multi-user mode.")
        if namespace not in self.users[self._secret(request)]:
            raise Wrong(403, f"User is not authorized with reason: no access to namespace {namespace}")
        return namespace

    # ------------------------------------------------------------------------------------------- lists

    def _page(self, request: Request, items: str, entries: list[dict]) -> dict:
        for one in checked("V2beta1Filter", _spelled(request.query.get("filter"))).predicates or ():
            if one.key not in KEYS:
                raise Wrong(400, f"no filter by {one.key}")
            test = {"EQUALS": str.__eq__, "IS_SUBSTRING": str.__contains__}[one.operation]
            entries = [entry for entry in entries if test(entry.get(one.key, ""), one.string_value)]
        start = int(request.query.get("page_token") or 0)
        size = min(int(request.query.get("page_size") or 20), self.page_size)
        page = {items: entries[start : start + size], "total_size": len(entries)}
        if start + size < len(entries):
            page["next_page_token"] = str(start + size)
        return page

    def _entries(self, request: Request, table: dict[str, dict]) -> list[dict]:
        experiment = request.query.get("experiment_id")
        if experiment:
            return [entry for entry in table.values() if entry["experiment_id"] == experiment]
        namespace = self._namespace(request, request.query.get("namespace", ""))
        return [entry for entry in table.values() if entry.get("namespace", "") == namespace]

    def _list_experiments(self, request: Request) -> dict:
        return self._page(request, "experiments", self._entries(request, self.experiments))

    def _list_pipelines(self, request: Request) -> dict:
        return self._page(request, "pipelines", self._entries(request, self.pipelines))

    def _list_versions(self, request: Request, pipeline: str) -> dict:
        found = [one for one in self.versions.values() if one["pipeline_id"] == pipeline]
        return self._page(request, "pipeline_versions", found)

    def _list_runs(self, request: Request) -> dict:
        return self._page(request, "runs", self._entries(request, self.runs))

    def _list_schedules(self, request: Request) -> dict:
        return self._page(request, "recurringRuns", self._entries(request, self.schedules))

    # ------------------------------------------------------------------------------------------- making

    def _new(self, table: dict[str, dict], key: str, entry: dict) -> dict:
        number = next(self._numbers)
        made = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=number)
        entry = {key: f"{key.removesuffix('_id')}-{number}", "created_at": made.isoformat()} | entry
        table[entry[key]] = entry
        return entry

    def _make_experiment(self, request: Request) -> dict:
        body = request.json
        checked("V2beta1Experiment", body)
        namespace = self._namespace(request, body.get("namespace", ""))
        if any(one["display_name"] == body["display_name"] for one in self.experiments.values()):
            raise Wrong(409, f"The name {body['display_name']} already exist.")
        return self._new(self.experiments, "experiment_id", body | {"namespace": namespace})

    def _make_pipeline(self, request: Request) -> dict:
        body = request.json
        checked("V2beta1Pipeline", body)
        namespace = self._namespace(request, body.get("namespace", ""))
        if any(one["name"] == body["name"] for one in self.pipelines.values()):
            raise Wrong(409, f"The name {body['name']} already exist.")
        return self._new(self.pipelines, "pipeline_id", body | {"namespace": namespace})

    def _upload_version(self, request: Request) -> dict:
        environ = {
            "wsgi.input": io.BytesIO(request.body), "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": request.headers["content-type"], "CONTENT_LENGTH": str(len(request.body)),
        }  # fmt: skip
        content = parse_form_data(environ)[2]["uploadfile"].read()
        pipeline = self._get(self.pipelines, request.query["pipelineid"])
        name = request.query["name"]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) or len(name) > 63:
            raise Wrong(400, f"{name} is no name of Kubernetes")
        if any(one["name"] == name for one in self.versions.values()):
            raise Wrong(409, "Failed to create a pipeline version")
        self.files.append(content)
        entry = {
            "pipeline_id": pipeline["pipeline_id"],
            "pipeline_spec": checked_package(content),
            "name": name,
        }
        entry["display_name"] = request.query.get("display_name", name)
        return self._new(
            self.versions, "pipeline_version_id", entry | {"description": request.query["description"]}
        )

    def _startable(self, kind: str, body: dict) -> None:
        """Refuse a run or schedule whose version, experiment or parameters are not there."""
        checked(kind, body)
        reference = body["pipeline_version_reference"]
        version = self._get(self.versions, reference["pipeline_version_id"])
        self._get(self.experiments, body["experiment_id"])
        assert version["pipeline_id"] == reference["pipeline_id"]
        root = version["pipeline_spec"]["pipeline_spec"]["root"]
        inputs = root.get("inputDefinitions", {}).get("parameters", {})
        for name in body.get("runtime_config", {}).get("parameters", {}):
            if name not in inputs:
                raise Wrong(400, f"unknown parameter {name}")

    def _make_run(self, request: Request) -> dict:
        body = request.json
        self._startable("V2beta1Run", body)
        return self._new(self.runs, "run_id", body | {"state": "PENDING"})

    def _make_schedule(self, request: Request) -> dict:
        body = request.json
        self._startable("V2beta1RecurringRun", body)
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise Wrong(400, "max_concurrency must be between 1 and 10")
        return self._new(self.schedules, "recurring_run_id", body | {"status": "ENABLED"})

    # ------------------------------------------------------------------------------------------ the rest

    @staticmethod
    def _get(table: dict[str, dict], number: str) -> dict:
        if number not in table:
            raise Wrong(404, f"{number} not found")
        return table[number]

    def _get_run(self, _: Request, number: str) -> dict:
        return self._get(self.runs, number)

    def _get_version(self, _: Request, _pipeline: str, number: str) -> dict:
        return self._get(self.versions, number)

    def _terminate(self, _: Request, number: str) -> dict:
        self._get(self.runs, number)["state"] = "CANCELED"
        self.terminated.append(number)
        return {}

    def _delete_schedule(self, _: Request, number: str) -> dict:
        self._get(self.schedules, number)
        del self.schedules[number]
        return {}

    _ROUTES = (
        ("GET", "/experiments", _list_experiments),
        ("POST", "/experiments", _make_experiment),
        ("GET", "/pipelines", _list_pipelines),
        ("POST", "/pipelines", _make_pipeline),
        ("GET", "/pipelines/([^/]+)/versions", _list_versions),
        ("GET", "/pipelines/([^/]+)/versions/([^/]+)", _get_version),
        ("POST", "/pipelines/upload_version", _upload_version),
        ("GET", "/runs", _list_runs),
        ("POST", "/runs", _make_run),
        ("GET", "/runs/([^/:]+)", _get_run),
        ("POST", "/runs/([^/:]+):terminate", _terminate),
        ("GET", "/recurringruns", _list_schedules),
        ("POST", "/recurringruns", _make_schedule),
        ("DELETE", "/recurringruns/([^/]+)", _delete_schedule),
    )


def _spelled(text: str | None) -> dict:
    """A filter with the numbers and the camel case that kfp's own client writes."""
    predicates = json.loads(text or "{}").get("predicates", [])
    return {
        "predicates": [
            {
                "string_value" if key == "stringValue" else key: FILTERS.get(value, value)
                for key, value in one.items()
            }
            for one in predicates
        ]
    }
