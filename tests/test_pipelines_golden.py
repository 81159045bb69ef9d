"""Every pipeline: what is compiled is what was reviewed, and Kubeflow reads it."""

import compiled
import kept_pipelines
import pytest

from pipelines import lint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept_pipelines.create(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("pipeline", kept_pipelines.OPTIONS)
def test_the_compiled_pipeline_is_the_one_that_is_kept(folder, pipeline):
    kept = (kept_pipelines.FOLDER / f"{pipeline}.yaml").read_text()
    message = "if this change is meant, run: python tests/kept_pipelines.py"
    assert kept_pipelines.reduced(folder, pipeline) == kept, message


@pytest.mark.parametrize("pipeline", kept_pipelines.OPTIONS)
def test_what_is_kept_is_what_kubeflow_defines(pipeline):
    """Strictly parsed: a field that PipelineSpec or KubernetesExecutorConfig does not have is an error."""
    documents = compiled.documents_of((kept_pipelines.FOLDER / f"{pipeline}.yaml").read_text())
    assert lint.findings(documents) == []
    executors = documents[0]["deploymentSpec"]["executors"]
    more = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(more)


def test_the_kept_pipelines_hold_the_graphs_they_are_named_for():
    commands = {}
    for pipeline in kept_pipelines.OPTIONS:
        documents = compiled.documents_of((kept_pipelines.FOLDER / f"{pipeline}.yaml").read_text())
        commands[pipeline] = list(compiled.tasks(documents))
    pairs = {"prepare near", "check mixtures near"}
    data = {*pairs, "cache near", "check cache near", "estimate near"}
    train = {*data, "train bridge.near", "check checkpoint bridge.near"}
    input_scores = {"evaluate unprocessed near", "check metrics unprocessed near", "report"}
    verbs = ("enhance", "check enhanced", "evaluate", "check metrics")
    ours, theirs = ({f"{verb} {system} near" for verb in verbs} for system in ("bridge.near", "theirs"))
    expected = {
        "full": train | ours | theirs | input_scores | {"sweep fine"},
        "data": data,
        "train": train,
        "evaluate": pairs | {"check checkpoint bridge.near"} | ours | input_scores,
        "enhance": {"enhance s3://bucket/in 1/2", "enhance s3://bucket/in 2/2"},
    }
    assert {pipeline: set(names) for pipeline, names in commands.items()} == expected


def test_a_checkpoint_that_is_there_is_named_by_its_gate(folder):
    """evaluate.py: no step has made the checkpoint, so its gate is given no reference and hands one on."""
    documents = compiled.documents_of(
        compiled.compile_here(folder, "evaluate", *kept_pipelines.OPTIONS["evaluate"])
    )
    tasks = compiled.tasks(documents)
    gate = tasks["check checkpoint bridge.near"]
    assert gate.spec["inputs"]["parameters"]["judged"] == {"runtimeValue": {"constant": ""}}
    given = tasks["enhance bridge.near near"].spec["inputs"]["parameters"]["checkpoint"]
    assert given["taskOutputParameter"]["producerTask"] == gate.name
