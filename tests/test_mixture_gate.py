"""The gate of mixtures: severities, drift between versions, damaged bytes, its page, and real recordings."""

import dataclasses
import html
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import own_recordings
import pandas
import pytest
import tiny
from gate_faults import delete, flipped, in_manifest, last_version

from diffse import audio, paths, settings
from diffse.data import manifest, prepare, shards
from diffse.data.corpora import folder, registry
from diffse.errors import DiffseError, GateFailed
from diffse.validation import gate, measures, mixtures


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, settings.Params]:
    """Mixtures and a cache in order."""
    root = tmp_path_factory.mktemp("good")
    return root, tiny.make_project(root)


@pytest.fixture
def project(good, tmp_path) -> tuple[Path, settings.Params]:
    """A copy of them, to be damaged."""
    root, params = good
    shutil.copytree(root, tmp_path / "project", symlinks=True)
    return tmp_path / "project", params


def utterances(params, root) -> pandas.DataFrame:
    return mixtures.subject(params, ("toy",), root).tables["utterances"]


def with_limits(params, **changes):
    block = dataclasses.replace(params.check.mixtures, **changes)
    return dataclasses.replace(params, check=dataclasses.replace(params.check, mixtures=block))


def test_a_warning_is_told_and_stops_nothing(project, caplog):
    root, params = project
    in_manifest(clipped=0.5)(root)
    softened = with_limits(params, severities={"clipping": "warning"})
    result = gate.run(softened, "mixtures", ("toy",), root)
    assert (result["success"], result["warnings"]) == (True, 1)
    assert "mixtures toy: clipping: 1 of 9 fail" in caplog.text
    page = (root / "gates/mixtures/toy.html").read_text()
    assert "Passed, with 1 warning" in page
    harder = with_limits(
        params, severities={"counts and hours against the last version (relative change)": "error"}
    )
    last_version(train__hours=99.0)(root)
    with pytest.raises(GateFailed, match="against the last version"):
        gate.run(harder, "mixtures", ("toy",), root)
    with pytest.raises(DiffseError, match=r"'clippin' is no rule of this gate; did you mean 'clipping'\?"):
        gate.run(with_limits(params, severities={"clippin": "warning"}), "mixtures", ("toy",), root)


def test_the_last_version_that_passed_is_what_drift_is_measured_from(project):
    root, params = project
    path = root / "gates/mixtures/toy.json"
    path.unlink(missing_ok=True)

    def run():
        gate.run(params, "mixtures", ("toy",), root)
        return json.loads(path.read_text())

    first = run()
    assert first["last_version"] == {}
    assert first["statistics"]["train.utterances"] == 3
    in_manifest(gender="f")(root)
    second = run()
    assert second["last_version"] == first["statistics"]
    assert run() == second  # judged again: the same bytes
    in_manifest(clipped=0.5, gender="m")(root)
    with pytest.raises(GateFailed):
        run()
    assert json.loads(path.read_text())["last_version"] == second["statistics"]
    in_manifest(clipped=0.0)(root)
    assert run()["last_version"] == second["statistics"]  # not of the version that failed


@pytest.mark.parametrize("times", [1, 2])
def test_a_gate_that_can_read_nothing_keeps_the_last_version(project, times):
    root, params = project
    path, table = root / "gates/mixtures/toy.json", root / "data/toy/mixtures/manifest.parquet"
    path.unlink(missing_ok=True)

    def run():
        gate.run(params, "mixtures", ("toy",), root)
        return path.read_bytes()

    run()
    in_manifest(gender="f")(root)
    before, whole = run(), table.read_bytes()
    for _ in range(times):
        table.write_bytes(whole[:100])
        with pytest.raises(GateFailed, match="damaged"):
            run()
        assert not json.loads(path.read_bytes())["success"]
    table.write_bytes(whole)
    assert run() == before
    assert json.loads(before)["last_version"]


def test_one_flipped_byte_anywhere_is_found(project):
    root, params = project
    chance = random.Random(0)
    files = [path for path in sorted((root / "data/toy/cache").iterdir()) if path.name != "cache.json"]
    assert {path.name for path in files} >= {"checksums.npy", "index.parquet", "peaks-valid.npy"}
    for path in files:
        whole = path.read_bytes()
        place = chance.randrange(len(whole))
        facts = path.stat()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as version control sees it: unchanged
        with pytest.raises(GateFailed, match=r"checksums match|files are there|cannot be read|changed"):
            gate.run(params, "cache", ("toy",), root)
        path.write_bytes(whole)
    assert gate.run(params, "cache", ("toy",), root)["success"]


def test_one_flipped_byte_is_found_before_training(project):
    """Although the gate has measured these files before, and size and names are the same."""
    root, params = project
    for artifact, pattern in (
        ("cache", "data/toy/cache/train-*.npy"),
        ("mixtures", "data/toy/mixtures/*.flac"),
    ):
        gate.run(params, artifact, ("toy",), root)
        flipped(pattern)(root)
        with pytest.raises(GateFailed, match=r"shards are there|checksums match"):
            gate.run(params, artifact, ("toy",), root)


def test_shards_that_were_measured_are_not_decoded_again(project, monkeypatch):
    root, params = project
    alone = utterances(params, root)
    monkeypatch.setattr(shards, "read_stored", lambda *_: pytest.fail("decoded again"))
    pandas.testing.assert_frame_equal(utterances(params, root), alone)
    monkeypatch.undo()
    for content in (b"junk", b""):
        (root / "data/toy/measures.parquet").write_bytes(content)
        pandas.testing.assert_frame_equal(utterances(params, root), alone)


def test_the_page_needs_no_network_and_hides_nothing(project):
    root, params = project
    in_manifest(id=lambda ids: ["<b>&bold", *ids[1:]], clipped=0.5)(root)
    with pytest.raises(GateFailed):
        gate.run(params, "mixtures", ("toy",), root)
    page = (root / "gates/mixtures/toy.html").read_text()
    assert "1 rule broken: the chain stops here" in page
    assert "&lt;b&gt;&amp;bold" in page
    assert "<b>&bold" not in page
    assert not any(word in page for word in ("http:", "https:", "src=", "@import", "url(", "<script"))
    for rule in json.loads((root / "gates/mixtures/toy.json").read_text())["rules"]:
        assert html.escape(rule["rule"]) in page
    delete("data/toy/mixtures/manifest.parquet")(root)
    with pytest.raises(GateFailed):
        gate.run(params, "mixtures", ("toy",), root)
    assert "can be read" in (root / "gates/mixtures/toy.html").read_text()


def test_a_noise_pool_that_all_splits_share_is_caught(tmp_path, monkeypatch):
    """As EARS-WHAM v1 mixed its splits: from one pool, whatever the split."""
    own_recordings.build(tmp_path, speakers=6)
    find = folder.find

    def shared(*arguments):
        found = find(*arguments)
        found.noise = [dataclasses.replace(n, split=split) for n in found.noise for split in manifest.SPLITS]
        return found

    monkeypatch.setattr(folder, "find", shared)
    with pytest.raises(DiffseError, match="is in two splits"):
        own_recordings.run(tmp_path)
    monkeypatch.setattr(registry, "shares_noise", lambda settings: True)  # a corpus that is published like this
    mixed = dataclasses.replace(own_recordings.MIX, mixtures_per_utterance=settings.SplitCounts(4, 4, 4))
    own_recordings.run(tmp_path, mixed)
    with pytest.raises(GateFailed) as failure:
        gate.run(own_recordings.params(mixed), "mixtures", ("own",), tmp_path)
    broken = [line.split(": ")[1] for line in str(failure.value).splitlines()]
    assert broken == ["noise recordings in one split", "noise recordings by checksum in one split"]


# -------------------------------------------------------------------------------------- real recordings


def real_corpus(root: Path, corpus: Path, name: str) -> None:
    (root / "sources").mkdir(exist_ok=True)
    (root / "sources" / name).mkdir()
    for item in corpus.iterdir():
        if item.name != "splits":
            (root / "sources" / name / item.name).symlink_to(item)
    lists = root / "sources" / name / "lists"
    lists.mkdir()
    for source in (corpus / "splits").glob("*.txt"):
        lines = source.read_text().splitlines()
        step = max(1, len(lines) // 6) if "speech" in source.name else 1
        (lists / source.name).write_text("\n".join(lines[::step]) + "\n")


def split_lists(what):
    return settings.SplitLists(*(f"lists/{split}_{what}.txt" for split in manifest.SPLITS))


def test_real_recordings_pass_every_rule(corpus, tmp_path):
    """Mixed, in measured rooms, and as published pairs; each rule on the audio finds its fault in them."""
    mix = settings.FolderCorpus(
        clean="speech", clean_lists=split_lists("speech"), noise_lists=split_lists("noise"), processes=1,
        rooms=settings.Rooms("measured", share=0.5, lists=split_lists("rir")),
        levels=settings.Levels("active"),
    )  # fmt: skip
    pairs = settings.FolderCorpus(layout="pairs", pairs_list="lists/pairs_vbd_test_subset.txt", processes=1)
    for name, block in (("mix", mix), ("pairs", pairs)):
        real_corpus(tmp_path, corpus, name)
        given = settings.Params((name,), (), (), {name: block}, {}, {})
        prepare.run(given, name, tmp_path)
        result = gate.run(given, "mixtures", (name,), tmp_path)
        assert (result["success"], result["warnings"]) == (True, 0)
    faults = {"band": upsampled, "lag_ms": late_by_a_millisecond}
    given = settings.Params(("pairs",), (), (), {"pairs": pairs}, {}, {})
    limits = given.check.mixtures
    for name, fault in faults.items():
        worst = damaged(given, tmp_path, fault)[name].iloc[0]
        assert worst < limits.min_band if name == "band" else worst > limits.max_lag_ms


def damaged(params, root, fault):
    """Measures of the pairs after `fault` of the first one."""
    rows = manifest.read(paths.mixtures(root, "pairs")).head(1).to_dict("records")
    folder_ = root / "damaged"
    folder_.mkdir(exist_ok=True)
    pair = np.stack(shards.read_pair(paths.mixtures(root, "pairs"), rows[0]))
    with shards.ShardWriter(folder_, 16000, 2) as writer:
        rows[0] |= writer.add(fault(pair))
    frame = measures.of_mixtures(pandas.DataFrame(rows), folder_)
    return frame.assign(lag_ms=frame["lag"].abs() / 16)


def upsampled(pair):
    return audio.resample(audio.resample(pair, 16000, 8000), 8000, 16000)


def late_by_a_millisecond(pair):
    return np.stack([pair[0], np.roll(pair[1], 16)])
