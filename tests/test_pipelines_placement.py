"""What the steps ask of a cluster, and the lint that reads it back from the compiled pipeline."""

import copy

import compiled
import pytest
import small_project

from diffse.errors import DiffseError
from pipelines import command_line, full, lint, placement

PARAMS = small_project.PARAMS | small_project.MORE | {"corpora": ["near"], "recipes": ["score", "bridge"]}
ON_GPU = ("train", "enhance", "sweep", "swap")
RELEASED = f"registry/diffse-python@sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = small_project.create(tmp_path_factory.mktemp("placement"))
    small_project.write_params(folder, PARAMS)
    return folder


@pytest.fixture(scope="module")
def documents(folder) -> list[dict]:
    return compiled.documents_of(compiled.compile_here(folder))


def placed(folder, text: str, *options: str) -> list[dict]:
    """The compiled pipeline with the changes of a placement file."""
    (folder / "placement.yaml").write_text(text)
    given = ("--placement", str(folder / "placement.yaml"), *options)
    return compiled.documents_of(compiled.compile_here(folder, "full", *given))


# ------------------------------------------------------------------------------------------- defaults


def test_only_what_runs_networks_asks_for_a_gpu(documents):
    for name, task in compiled.tasks(documents).items():
        accelerator = task.container["resources"].get("accelerator")
        assert bool(accelerator) == (task.component in ON_GPU), name
        assert bool(task.platform.get("tolerations")) == bool(accelerator), name
        if accelerator:
            assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")


def test_every_step_has_the_volumes_a_deadline_the_image_and_an_end(documents):
    for task in lint.tasks(documents):
        assert task.container["image"] == "diffse-python:0.1.0"
        assert task.platform["pvcMount"][0]["mountPath"] == "/workspace"
        assert int(task.platform["activeDeadlineSeconds"]) >= 1800
        mounts = {mount["mountPath"] for mount in task.platform["emptyDirMounts"]}
        assert mounts == ({"/tmp", "/dev/shm"} if task.component == "train" else {"/tmp"})
        assert task.platform["securityContext"] == {"runAsNonRoot": True, "runAsUser": "1000"}


def test_a_workspace_on_s3_needs_no_volume(folder):
    for text in ("{}\n", "volume_claim: ''\n"):
        documents = placed(folder, text, "--workspace", "s3://bucket/project/")
        assert not [task.name for task in lint.tasks(documents) if task.platform.get("pvcMount")]
        default = documents[0]["root"]["inputDefinitions"]["parameters"]["workspace"]["defaultValue"]
        assert default == "s3://bucket/project"


def test_steps_that_would_share_nothing_are_refused(folder, capsys):
    (folder / "none.yaml").write_text("volume_claim: ''\n")
    options = ["--placement", str(folder / "none.yaml"), "--params", str(folder / "params.yaml")]
    assert command_line.main(full.PIPELINE, ["--compile", str(folder / "x.yaml"), *options]) == 2
    said = capsys.readouterr().err
    assert "none.yaml: volume_claim is empty, so that steps share no folder; give --workspace s3://..." in said


def test_retries_wait_longer_each_time(documents):
    for name, task in compiled.tasks(documents).items():
        policy = task.spec.get("retryPolicy")
        if task.component == "check":
            assert policy is None, name
        else:
            assert policy["maxRetryCount"] == (5 if task.component == "train" else 2)
            assert policy["backoffDuration"] == "60s"
            assert (policy["backoffFactor"], policy["backoffMaxDuration"]) == (2.0, "900s")


def test_every_step_names_its_runner_and_run(documents):
    for task in lint.tasks(documents):
        assert {"name": "DIFFSE_RUNNER", "value": "kubeflow"} in task.container["env"]
        assert task.platform["fieldPathAsEnv"] == [
            {"name": "DIFFSE_PIPELINE_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]


# ---------------------------------------------------------------------------------------- what is changed

CHANGES = f"""
image: {RELEASED}
image_pull_secrets: [registry]
scratch: 5Gi
s3_secret: store
s3_keys: {{user: AWS_ACCESS_KEY_ID, word: AWS_SECRET_ACCESS_KEY}}
environment: {{AWS_ENDPOINT_URL: "https://store"}}
nodes: {{zone: a}}
tolerations: [{{key: team, operator: Equal, value: speech, effect: NoExecute}}]
gpu_nodes: {{pool: a100}}
pipeline_root: s3://bucket/runs
labels: {{team: speech}}
train: {{gpus: 4, hours: 2, shared_memory: 1Gi, nodes: {{pool: h100}}}}
"""


def test_a_placement_file_changes_what_it_names(folder):
    found = placed(folder, CHANGES, "--release")
    tasks = compiled.tasks(found)
    train, report = tasks["train score.near"], tasks["report"]
    for task in (train, report):
        assert task.container["image"] == RELEASED
        assert {"name": "AWS_ENDPOINT_URL", "value": "https://store"} in task.container["env"]
        assert task.platform["imagePullSecret"][0]["secretName"] == "registry"
        assert task.platform["podMetadata"]["labels"] == {"team": "speech"}
        keys = {pair["secretKey"]: pair["envVar"] for pair in task.platform["secretAsEnv"][0]["keyToEnv"]}
        assert keys == {"user": "AWS_ACCESS_KEY_ID", "word": "AWS_SECRET_ACCESS_KEY"}
        assert task.platform["tolerations"][0] == {
            "key": "team", "operator": "Equal", "value": "speech", "effect": "NoExecute"
        }  # fmt: skip
    assert report.platform["nodeSelector"]["labels"] == {"zone": "a"}
    assert tasks["enhance score.near near"].platform["nodeSelector"]["labels"] == {"zone": "a", "pool": "a100"}
    assert train.platform["nodeSelector"]["labels"] == {"zone": "a", "pool": "h100"}
    assert train.platform["activeDeadlineSeconds"] == "7200"
    assert train.container["resources"]["accelerator"]["resourceCount"] == "4"
    assert {"name": "DIFFSE_PROCESSES", "value": "4"} in train.container["env"]
    assert found[0]["defaultPipelineRoot"] == "s3://bucket/runs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu: 4", "unknown setting 'gpu'"),
        ("train: {memory: 64 GB}", "train.memory is '64 GB'; write it as Kubernetes does"),
        ("train: {gpus: -1}", "train.gpus is -1; the least is 0"),
        ("cache: {hours: 0}", "cache.hours is 0.0; the least is 0.01"),
        ("retry_wait: 1m", "retry_wait is '1m'; write seconds"),
        ("scratch: much", "scratch is 'much'"),
        ("run_as_user: 0", "run_as_user is 0 (root)"),
        ("environment: {AWS_SECRET_ACCESS_KEY: x}", "environment.AWS_SECRET_ACCESS_KEY would stand in the"),
    ],
)
def test_what_no_cluster_takes_is_refused(tmp_path, text, message):
    (tmp_path / "placement.yaml").write_text(text)
    with pytest.raises(DiffseError) as refused:
        placement.load(tmp_path / "placement.yaml")
    assert str(refused.value).startswith(f"{tmp_path}/placement.yaml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


# ------------------------------------------------------------------------------------------- the lint


def container(documents: list[dict], name: str) -> dict:
    return documents[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def platform(documents: list[dict], name: str) -> dict:
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{name}"]


def task(documents: list[dict], name: str) -> dict:
    return documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"][name]


GPU = {"resourceType": "nvidia.com/gpu", "resourceCount": "1"}
LIST_OF_NUMBERS = {"runtimeValue": {"constant": [1, 2]}}
URL_WITH_PASSWORD = {"runtimeValue": {"constant": "https://me:word@store/x"}}
FAULTS = {
    "cache: asks for a GPU": lambda d: container(d, "cache")["resources"].update(accelerator=GPU),
    "train: names an accelerator, but asks for none": lambda d: container(d, "train")["resources"][
        "accelerator"
    ].update(resourceCount="0"),
    "prepare: has no cpu request and limit": lambda d: container(d, "prepare")["resources"].pop(
        "resourceCpuLimit"
    ),
    "report: has no memory request and limit": lambda d: container(d, "report")["resources"].pop(
        "resourceMemoryRequest"
    ),
    "evaluate: has no deadline": lambda d: platform(d, "evaluate").pop("activeDeadlineSeconds"),
    "sweep: carries TOKEN in plain sight": lambda d: container(d, "sweep")["env"].append(
        {"name": "TOKEN", "value": "x"}
    ),
    "sweep: carries HARMLESS in plain sight": lambda d: container(d, "sweep")["env"].append(
        {"name": "HARMLESS", "value": "AKIA0123456789ABCDEF"}
    ),
    "cache: carries a secret in its input 'corpus'": lambda d: task(d, "cache")["inputs"]["parameters"].update(
        corpus=URL_WITH_PASSWORD
    ),
    "train-2: has no shared memory": lambda d: platform(d, "train-2").pop("emptyDirMounts"),
    "check-2: is repeated": lambda d: task(d, "check-2").update(retryPolicy={"maxRetryCount": 1}),
    "enhance: is not repeated": lambda d: task(d, "enhance").pop("retryPolicy"),
    "check: may be answered": lambda d: task(d, "check").update(cachingOptions={"enableCache": True}),
    "check: has numbers in its input 'names'": lambda d: task(d, "check")["inputs"]["parameters"].update(
        names=LIST_OF_NUMBERS
    ),
    "estimate: may run as root": lambda d: platform(d, "estimate").pop("securityContext"),
    "the image 'x/diffse:latest' is another one": lambda d: container(d, "swap").update(
        image="x/diffse:latest"
    ),
    "the image 'x:5000/diffse' is another one": lambda d: container(d, "swap").update(image="x:5000/diffse"),
    "cache: is a loop": lambda d: task(d, "cache").update(
        parameterIterator={"itemInput": "corpus", "items": {"raw": "[]"}}
    ),
    "train: hangs on a condition": lambda d: task(d, "train").update(triggerPolicy={"condition": "a == 'b'"}),
    "nothing records how": lambda d: d[0]["root"]["dag"]["tasks"]["conclude"].pop("triggerPolicy"),
    "not a pipeline that Kubeflow reads": lambda d: task(d, "cache").update(retry=3),
    'not a pipeline that Kubeflow reads: Message type "kfp_kubernetes.Kub': lambda d: platform(
        d, "cache"
    ).update(deadline=3),
}


def test_the_lint_has_nothing_against_what_is_compiled(documents):
    assert lint.findings(documents) == []


@pytest.mark.parametrize("message", FAULTS)
def test_the_lint_finds(documents, message):
    planted = copy.deepcopy(documents)
    FAULTS[message](planted)
    found = lint.findings(planted)
    assert len(found) == 1
    assert message in found[0]


def test_a_release_needs_the_digest_of_its_image(folder, documents, capsys):
    (finding,) = lint.findings(documents, release=True)
    assert "the content of the image 'diffse-python:0.1.0' can change" in finding
    target = folder / "release.yaml"
    words = ["--compile", str(target), "--params", str(folder / "params.yaml"), "--release"]
    assert command_line.main(compiled.PIPELINES["full"].PIPELINE, words) == 2
    assert not target.exists()
    assert capsys.readouterr().err == f"pipelines/full.py: {target}: {finding}\n"
