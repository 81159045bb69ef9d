"""The report's page: self-contained, accessible, safe; its figures and players; and how a browser takes it."""

import base64
import io
import itertools
import json
import shutil
from pathlib import Path

import chromium
import numpy as np
import pytest
import soundfile
from report_project import BAD, FILES, GOOD, NASTY, RATE, Outline, make_project, page_of, text_of

from diffse import paths, settings, storage
from diffse.data import manifest, shards
from diffse.report import artifacts, build, figures, listening, loudness


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[settings.Params, Path, dict]:
    """(params, root, what run returned) of the complete project; tests must not change it."""
    root = tmp_path_factory.mktemp("project")
    params = make_project(root)
    return params, root, build.run(params, root)


@pytest.fixture
def copied(made, tmp_path) -> tuple[settings.Params, Path]:
    """The same project without its report, free to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(made[1], root)
    shutil.rmtree(root / "report")
    return made[0], root


# ------------------------------------------------------------------------------------------------ page


def test_page_needs_nothing_outside_itself(made):
    page = page_of(made[1])
    outline = Outline(page)
    assert outline.open == []
    for tag, attributes in outline.elements:
        for name in ("href", "src", "srcset", "action", "poster", "xlink:href", "style"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value[:80])
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert "url(" not in page
    assert "@import" not in page
    policy = next(meta for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert made[2]["bytes"] == len(page.encode()) < 4_000_000


def test_page_is_accessible(made):
    outline = Outline(page_of(made[1]))
    assert outline.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(outline.all(landmark)) == 1
    levels = [int(tag[1]) for tag, _ in outline.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(outline.all("caption")) == len(outline.all("table"))
    assert all(picture.get("alt") for picture in outline.all("img"))
    assert all(player.get("aria-label") and "controls" in player for player in outline.all("audio"))
    for drawing in outline.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    for region in outline.all("div"):
        if region.get("class", "").startswith("scroll"):
            assert region["tabindex"] == "0"
            assert region["aria-label"]
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [link["href"][1:] for link in outline.all("a")]
    assert set(anchors) <= set(ids)


def test_page_escapes_what_it_was_given(made):
    page, text = page_of(made[1]), text_of(page_of(made[1]))
    assert "<img src=x" not in page
    assert NASTY in text
    assert "A report & more" in text
    assert "<title>A report &amp; more</title>" in page


def test_page_says_what_each_system_does(made):
    text = text_of(page_of(made[1]))
    assert f"{BAD} stays below its input in SI-SDR (−" in text
    assert f"{GOOD} improves its input in SI-SDR by +" in text
    assert "M5 (Schrödinger bridge), small form" in text
    assert "PESQ of bridge_small.demo, 1 file: no utterances detected" in text
    assert "SI-SAR of unprocessed input, 9 files: no reference" in text
    assert "DNSMOS P.808" in text
    assert "c0ffeec0ffee" in text
    assert storage.sha256_file(paths.mixtures(made[1], "demo") / manifest.FILE)[:12] in text


def test_page_shows_gates(made):
    text = text_of(page_of(made[1]))
    assert "1 gate has failed: mixtures (pairs)" in text
    assert f"snr: 0.7 (limit 0.5), 1 failed: {NASTY}. Prepare the corpus again." in text
    assert "12 of 15 gates have not run" in text


def test_tables_hold_every_file_and_the_reason_of_a_missing_value(made):
    page = page_of(made[1])
    start = page.index('<table class="sortable">')
    table = page[start : page.index("</table>", start)]
    assert table.count("<tr>") == 2 + FILES
    assert '<abbr title="no utterances detected">–</abbr>' in table
    columns = [
        int(head["data-column"]) for head in Outline(table + "</table>").all("th") if "data-column" in head
    ]
    assert sorted(columns) == list(range(4 + 4 * 3))


def test_long_file_tables_keep_the_worst(copied, monkeypatch):
    params, root = copied
    monkeypatch.setattr("diffse.report.page.MAX_ROWS", 4)
    build.run(params, root)
    text = text_of(page_of(root))
    assert f"The worst 4 of 9 files, ranked by how much {GOOD} changes their SI-SDR" in text


def test_same_artifacts_give_the_same_bytes_elsewhere(made, copied):
    params, root = copied
    build.run(params, root)
    for name in ("index.html", "summary.csv", "summary.md"):
        assert (root / "report" / name).read_bytes() == (made[1] / "report" / name).read_bytes()


# -------------------------------------------------------------------------------------- listen and look


def decoded(uri: str) -> tuple[np.ndarray, int]:
    kind, content = uri.split(",", 1)
    assert kind == "data:audio/flac;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(content)))


def test_players_hold_the_right_audio_at_one_level(made):
    params, root, _ = made
    project = artifacts.load(params, root)
    chosen = listening.choose(project, "demo", 3)
    files = listening.listen_files(project, "demo", chosen, 1.5)
    assert [file.why.split(":")[0] for file in files] == ["worst", "median", "best"]
    rows = project.mixtures["demo"].table.set_index("id")
    for file in files:
        assert [signal.name for signal in file.signals] == ["noisy input", BAD, GOOD, "clean"]
        row = rows.loc[file.id]
        clean, noisy = shards.read_pair(project.mixtures["demo"].folder, row)
        expected = (noisy, clean + 1.7 * (noisy - clean), clean + 0.4 * (noisy - clean), clean)
        levels = []
        for signal, wave in zip(file.signals, expected, strict=True):
            heard, rate = decoded(signal.audio)
            assert (rate, len(heard)) == (RATE, min(len(clean), round(1.5 * RATE)))
            assert np.abs(heard).max() < 0.99
            assert np.corrcoef(heard, wave[: len(heard)])[0, 1] > 0.9999
            levels.append(loudness.lufs(heard, rate))
        assert max(levels) - min(levels) < 0.02


def test_chosen_files_are_ranked_by_the_best_system(made):
    params, root, _ = made
    project = artifacts.load(params, root)
    before = project.scores["unprocessed", "demo"].table["si_sdr"]
    change = (project.scores[GOOD, "demo"].table["si_sdr"] - before).sort_values()
    chosen = [item for item, _ in listening.choose(project, "demo", 3)]
    assert chosen == [change.index[0], change.index[FILES // 2], change.index[-1]]
    assert len(listening.choose(project, "demo", 50)) == FILES
    assert [why.split(":")[0] for _, why in listening.choose(project, "demo", 1)] == ["median"]
    assert listening.choose(project, "demo", 0) == []


def test_matching_keeps_peaks_and_silence():
    tone = np.sin(np.arange(8000) * 0.3).astype(np.float32)
    spike = np.zeros(8000, np.float32)
    spike[100] = 0.9  # soft, so that level matching alone would clip it
    waves = [tone, spike, np.zeros(8000, np.float32)]
    (loud, _), (sharp, _), (silent, text) = listening.matched(waves, RATE)
    assert np.abs(sharp).max() == pytest.approx(0.98, abs=1e-3)
    assert loudness.lufs(loud, RATE) == pytest.approx(loudness.lufs(sharp, RATE), abs=0.01)
    assert not silent.any()
    assert text.startswith("silent")


def test_loudness_is_that_of_the_recommendation():
    """BS.1770-4: a 997 Hz sine at full scale in one channel reads -3.01 LUFS; short signals are repeated."""
    sine = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
    assert loudness.lufs(sine, 48000) == pytest.approx(-3.01, abs=0.05)
    assert loudness.lufs(sine[:9600], 48000) == pytest.approx(-3.01, abs=0.1)
    assert loudness.lufs(np.zeros(100), 48000) == loudness.lufs(np.zeros(0), 48000) == -np.inf
    assert loudness.gains([sine * 1e-6], 48000) == [1.0]


def image_of(uri: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_spectrograms_show_frequency_and_share_their_scale():
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    loud, soft = (
        image_of(uri).astype(float) for uri in listening.spectrogram_images([tone, tone * 0.01], RATE)
    )
    rows = loud.shape[0]
    brightest = rows - 1 - int(loud[:, loud.shape[1] // 2].argmax())
    assert brightest * RATE / 2 / (rows - 1) == pytest.approx(2000, abs=RATE / 2 / rows)
    steps = loud.max() - soft.max()  # 40 dB of the 80 that the colours span
    assert steps == pytest.approx((listening._LEVELS - 1) / 2, abs=1)


@pytest.mark.parametrize("samples", [1, 100, 512, 16000, 960000])
def test_spectrograms_of_any_length_stay_small(samples):
    power = listening.spectral_power(np.ones(samples, np.float32), RATE)
    assert power.shape[0] == 257
    assert 1 <= power.shape[1] <= 321
    image_of(listening.spectrogram_images([np.zeros(samples, np.float32)], RATE)[0])


def test_long_listening_lists_are_cut_to_the_budget(made, monkeypatch):
    params, root, _ = made
    project = artifacts.load(params, root)
    chosen = {corpus: listening.choose(project, corpus, 3) for corpus in project.corpora}
    assert listening.fitting_seconds(project, chosen, 6.0) == 6.0
    monkeypatch.setattr(listening, "BUDGET_BYTES", 1_000_000)
    # 2 corpora, 3 files, 4 signals, 2 bytes a sample, 4/3 for base64
    assert listening.fitting_seconds(project, chosen, 6.0) == pytest.approx(1e6 / (24 * RATE * 2 * 4 / 3))


# --------------------------------------------------------------------------------------------- figures


def test_scale_and_ticks():
    scale = figures.Scale(0.0, 10.0, 100.0, 0.0)
    assert (scale(0.0), scale(10.0), scale(5.0)) == (100.0, 0.0, 50.0)
    ticks = scale.ticks()
    assert [tick.text for tick in ticks] == ["0", "2", "4", "6", "8", "10"]
    assert all(0.0 <= tick.at <= 100.0 for tick in ticks)
    log = figures.Scale(0.5, 500.0, 0.0, 300.0, log=True)
    assert log(5.0) == 100.0
    assert [tick.text for tick in log.ticks()] == ["1", "10", "100"]
    assert figures.Scale(0, 3e6, 0, 1).ticks()[-1].text == "3M"


def test_loss_chart_survives_odd_curves():
    steps = np.arange(5.0)
    assert figures.loss_chart("x", 0, steps, np.full(5, np.nan)) is None
    broken = figures.loss_chart("x", 0, steps, np.array([4.0, np.nan, 2.0, np.inf, 1.0]))
    assert "2 values that are not finite are left out" in broken.description
    assert broken.y_label == "loss (log scale)"
    assert figures.loss_chart("x", 0, steps, np.array([1.0, -1, 1, -1, 0])).y_label == "loss"
    for single in (
        figures.loss_chart("x", 0, np.ones(1), np.ones(1)),
        figures.loss_chart("x", 0, steps, steps * 0),
    ):
        assert "nan" not in single.series[0].line


def test_long_loss_curves_are_thinned_and_smoothed():
    generator = np.random.default_rng(0)
    steps = np.arange(1, 200001)
    chart = figures.loss_chart("x", 0, steps, 10 + generator.standard_normal(len(steps)))
    assert chart.series[0].line.count("L") == figures.MAX_POINTS - 1

    def spread(path: str) -> float:
        return float(np.std([float(point.split()[1]) for point in path[1:].split("L")]))

    assert spread(chart.series[0].line) < 0.5 * spread(chart.series[0].faint)


def test_scatter_counts_the_files_above_the_line():
    before, after = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 5.0])
    chart = figures.scatter_chart("PESQ", "", {"x": (1, ["a", "b", "c"], before, after)})
    assert "x is above its input on 2 of 3 files" in chart.description
    assert [point.title for point in chart.series[0].points] == ["x, a: 1 → 2", "x, b: 2 → 1", "x, c: 3 → 5"]
    assert figures.scatter_chart("PESQ", "", {"x": (0, [], before[:0], after[:0])}) is None


# --------------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with a log of every request and console message."""
    session = chromium.start(tmp_path_factory.mktemp("chromium"), log=True)
    session.set_script_timeout(60)
    session.get("about:blank")
    session.get_log("performance")  # the browser's own start page
    yield session
    session.quit()


LOADED = """
const done = arguments[0];
const wait = player => player.readyState > 0 ? null
  : new Promise(resolve => ["loadedmetadata", "error"].forEach(kind => player.addEventListener(kind, resolve)));
Promise.all(Array.from(document.querySelectorAll("audio"), wait))
  .then(() => done(Array.from(document.querySelectorAll("audio"), player => player.duration)));
"""
COLUMN = """
const rows = document.querySelector("table.sortable").tBodies[0].rows;
return Array.from(rows, row => row.cells[arguments[0]].textContent.trim());
"""


def test_page_in_a_browser(made, browser):
    browser.get((made[1] / "report" / "index.html").as_uri())
    durations = browser.execute_async_script(LOADED)
    assert len(durations) == 2 * 3 * 4
    assert all(duration and 0.9 < duration <= 1.51 for duration in durations)

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in asked)
    assert [url[:80] for url in asked if not url.startswith(("file:", "data:"))] == []

    head = browser.find_element("css selector", 'table.sortable th[data-column="6"]')
    button = head.find_element("tag name", "button")
    button.click()
    values = [float(text.replace("−", "-")) for text in browser.execute_script(COLUMN, 6)]
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    falling = [float(text.replace("−", "-")) for text in browser.execute_script(COLUMN, 6)]
    assert falling == sorted(values, reverse=True)
    # a missing score stays last whichever way the column is sorted
    button = browser.find_element("css selector", 'table.sortable th[data-column="9"] button')
    for _ in range(2):
        button.click()
        assert browser.execute_script(COLUMN, 9)[-1] == "–"

    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.get_log("browser") == []


def test_page_fits_a_phone(made, browser):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get((made[1] / "report" / "index.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_one_player_at_a_time(made, browser):
    browser.get((made[1] / "report" / "index.html").as_uri())
    browser.execute_async_script(LOADED)
    playing = browser.execute_async_script(
        """
        const done = arguments[0], [first, second] = document.querySelectorAll("audio");
        first.muted = second.muted = first.loop = second.loop = true;
        first.play().then(() => second.play())
          .then(() => setTimeout(() => done([!first.paused, !second.paused]), 200))
          .catch(error => done([String(error)]));
        """
    )
    assert playing == [False, True]
