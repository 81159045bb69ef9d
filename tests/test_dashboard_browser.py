"""The dashboard as a visitor meets it: `diffse dashboard` in a process of its own, and headless Chromium."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import chromium
import dashboard_project
import pytest
import report_project
import tiny

from diffse import audio, paths
from diffse.dashboard import gate

TOKEN = "a token of the tests"
HOSTILE = '<script>window.ran = 1</script><img src="x" onerror="window.ran = 1">'
PATIENCE = 60  # seconds that a page may take on a busy machine


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """(root, ids of its runs) of a project one of whose records is hostile wherever a text may stand."""
    project, ids = dashboard_project.make(tmp_path_factory.mktemp("project"))
    rule = {"rule": HOSTILE, "success": False, "observed": HOSTILE, "limit": HOSTILE, "failed_count": 1}
    hostile = dashboard_project.record(
        "train", "hostile", minutes=20, names=[HOSTILE], error=HOSTILE, state="failed", pipeline=HOSTILE,
        data={HOSTILE: HOSTILE}, settings={HOSTILE: {"note": HOSTILE}}, inputs=[HOSTILE], output=HOSTILE,
        result={HOSTILE: HOSTILE}, host={"name": HOSTILE}, arguments=[HOSTILE], code={"commit": HOSTILE},
        gate={"rules": [rule | {"examples": [HOSTILE], "remedy": HOSTILE}]},
    )  # fmt: skip
    ids["hostile"] = dashboard_project.keep(project.root, hostile, HOSTILE)
    return project.root, ids


@pytest.fixture(scope="module")
def address(made) -> Iterator[str]:
    """Of the project's dashboard, which asks for TOKEN; without the slash at its end."""
    surroundings = {
        name: value for name, value in os.environ.items() if name not in ("DIFFSE_RUNS", "KFP_HOST")
    }
    command = [sys.executable, "-m", "diffse", "dashboard", "--port", "0"]
    with subprocess.Popen(
        command, cwd=made[0], stdout=subprocess.PIPE, text=True,
        env=surroundings | {"DIFFSE_DASHBOARD_TOKEN": TOKEN},
    ) as server:  # fmt: skip
        try:
            yield next(found[0] for line in server.stdout if (found := re.search(r"http://127[\d.:]+", line)))
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium."""
    session = chromium.start(tmp_path_factory.mktemp("chromium"), "window-size=1400,1100")
    yield session
    session.quit()


@pytest.fixture
def visit(browser, address):
    """Opens a page of the dashboard as somebody who has given the token."""
    browser.switch_to.default_content()
    if not browser.get_cookie(gate.COOKIE):
        browser.get(f"{address}/?token={TOKEN}")

    def open_page(path: str) -> None:
        browser.get(f"{address}/{path}")

    return open_page


def until(browser, holds):
    """What `holds(browser)` gives once it is true; pages fill step by step and refresh themselves."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    passing = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(browser, PATIENCE, ignored_exceptions=passing).until(holds)


def text(browser) -> str:
    """What the page shows, without what is in its frames."""
    return browser.execute_script("return document.body.innerText.replaceAll('\\u2060', '')")


def shows(browser, *parts: str) -> str:
    """Wait until the page shows all of `parts`; returns its whole text."""
    with contextlib.suppress(Exception):  # the assertion says what is missing
        until(browser, lambda _: all(part in text(browser) for part in parts))
    said = text(browser)
    assert [part for part in parts if part not in said] == [], said[:3000]
    return said


def cells(browser) -> list[list[str]]:
    """Rows of the first table of runs, as it tells them to screen readers."""
    script = """return Array.from(document.querySelectorAll('[data-testid="stDataFrame"] canvas tbody tr'),
                row => Array.from(row.children, cell => cell.textContent))"""
    return until(browser, lambda _: browser.execute_script(script))


def into_frame(browser, css: str) -> None:
    """Step into the sandboxed frame on the page, once it holds an element like `css`."""
    from selenium.webdriver.common.by import By

    def inside(_) -> bool:
        browser.switch_to.default_content()
        for frame in ('[data-testid="stIFrame"]', "iframe"):
            browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, frame))
        return bool(browser.find_elements(By.CSS_SELECTOR, css))

    until(browser, inside)


def heard(browser) -> dict:
    """What the player of the frame does."""
    return browser.execute_script("return window.player.state()")


# ----------------------------------------------------------------------------------------------- pages


def test_the_form_refuses_a_wrong_token_and_admits_the_right_one(browser, address):
    from selenium.webdriver.common.by import By

    browser.get(address)
    browser.delete_all_cookies()
    browser.get(address)
    shows(browser, "This dashboard needs its token.")
    browser.find_element(By.NAME, "token").send_keys("not " + TOKEN + "\n")
    assert "Runs" not in shows(browser, "Wrong token.")
    assert browser.get_cookies() == []
    browser.find_element(By.NAME, "token").send_keys(TOKEN + "\n")
    shows(browser, "Runs", "Listen", "Enhance")
    assert "token" not in browser.current_url
    assert (
        browser.execute_script("return document.cookie.includes('diffse')") is False
    )  # scripts cannot read it


def test_the_list_of_runs_opens_a_run(made, browser, visit):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    visit("")
    shows(browser, "Click a run to open it", "2 run records are damaged", "running", "lost")
    rows = cells(browser)
    assert any(f"train {report_project.BAD}" in row for row in rows)
    assert any("420 of 900 step" in cell for row in rows for cell in row)
    grid = browser.find_element(By.CSS_SELECTOR, '[data-testid="stDataFrame"] canvas')
    place = next(place for place, row in enumerate(rows) if f"train {report_project.BAD}" in row)
    first = -grid.size["width"] // 2 + 250, -grid.size["height"] // 2 + 35 * (place + 1) + 17
    ActionChains(browser).move_to_element_with_offset(grid, *first).click().perform()
    shows(browser, "Log", "Environment", "420 of 900 step")
    assert f"run={made[1]['running']}" in browser.current_url


def test_a_link_opens_a_run_with_its_state_log_and_gate(made, browser, visit):
    from selenium.webdriver.common.by import By

    visit(f"run?run={made[1]['train']}")
    shows(browser, f"train {report_project.GOOD}", "done", "validation si_sdr 8.0", dashboard_project.NASTY)
    next(
        tab for tab in browser.find_elements(By.CSS_SELECTOR, '[role="tab"]') if tab.text == "Settings"
    ).click()
    shows(browser, "train.bridge_small.network.nf")
    visit(f"run?run={made[1]['failed']}")
    shows(
        browser,
        "check mixtures pairs",
        "failed",
        "1 fail (found 0.7, allowed 0.5)",
        "Prepare the corpus again.",
    )
    visit(f"run?run={made[1]['gate']}")
    shows(browser, "The gate has passed: 1 rules hold.")


def test_the_listening_room_switches_the_signal_that_plays(browser, visit):
    from selenium.webdriver.common.by import By

    visit("listen")
    shows(browser, "Utterance", "Order")
    into_frame(browser, ".signal")
    names = [button.text for button in browser.find_elements(By.CSS_SELECTOR, ".signal > button")]
    assert [name.split("\n")[0] for name in names] == [
        "1 · noisy", "2 · clean", f"3 · {report_project.GOOD}", f"4 · {report_project.BAD}",
    ]  # fmt: skip
    browser.find_element(By.ID, "play").click()
    playing = until(browser, lambda _: (state := heard(browser))["playing"] and state["at"] > 0.05 and state)
    assert len(playing["decoded"]) == 4
    assert min(playing["decoded"]) > 0.5
    browser.find_elements(By.CSS_SELECTOR, ".signal > button")[2].click()
    browser.find_element(By.TAG_NAME, "body").send_keys("4")
    until(browser, lambda _: heard(browser)["chosen"] == 3)
    pressed = [
        button.get_attribute("aria-pressed")
        for button in browser.find_elements(By.CSS_SELECTOR, ".signal > button")
    ]
    assert pressed == ["false", "false", "false", "true"]
    reached = (
        "try { return [window.origin, String(parent.parent.document)] } catch (error) { return error.name }"
    )
    assert browser.execute_script(reached) == "SecurityError"  # the frame sees nothing of the dashboard


def drawn(browser, count: int) -> None:
    """Wait until `count` charts have been drawn, none of them empty."""
    script = """return Array.from(document.querySelectorAll('.stVegaLiteChart'), chart => {
                  const drawing = chart.querySelector('canvas, svg.marks');
                  const box = drawing ? drawing.getBoundingClientRect() : {width: 0, height: 0};
                  return box.width * box.height; })"""
    until(browser, lambda _: len(sizes := browser.execute_script(script)) == count and min(sizes) > 10_000)


def test_curves_of_a_training_are_drawn_while_it_runs(browser, visit):
    visit("training")
    shows(browser, "Smooth the loss", "Validation", f"{report_project.BAD}: 420 of 900 step, 8 min left")
    drawn(browser, 4)  # the loss and three scores


def test_the_data_page_draws_corpora_and_their_versions(browser, visit):
    visit("data")
    shows(browser, "utterances", "stability index")
    until(browser, lambda _: any("demo" in cell for row in cells(browser) for cell in row))
    drawn(browser, browser.execute_script("return document.querySelectorAll('.stVegaLiteChart').length"))


@pytest.fixture
def dark(browser):
    """A visitor whose system is dark."""
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


BRIGHTNESS = """
const colour = getComputedStyle(document.querySelector(arguments[0])).backgroundColor;
return Math.max(...colour.match(/[0-9.]+/g).slice(0, 3).map(Number));
"""


def test_pages_graphs_and_players_are_dark_where_the_visitor_wants_it(browser, visit, dark):
    visit(f"run?pipeline={dashboard_project.PIPELINE}")
    until(browser, lambda _: browser.execute_script(BRIGHTNESS, ".stApp") < 60)
    into_frame(browser, "html.dark svg .step")
    visit("listen")
    browser.switch_to.default_content()
    into_frame(browser, "html.dark .signal")
    assert browser.execute_script(BRIGHTNESS, "body") < 60


@pytest.fixture
def checkpoint(made, tmp_path) -> Iterator[str]:
    """Name of a checkpoint in the project that a training of some steps has left."""
    from diffse import training

    training.run(tiny.make_project(tmp_path, train__bridge__steps=4), "bridge.toy", tmp_path)
    folder = paths.model(made[0], "bridge.toy")
    shutil.copytree(paths.model(tmp_path, "bridge.toy"), folder)
    yield "bridge.toy (best)"
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_recording_is_enhanced_by_a_trained_checkpoint(browser, visit, checkpoint, tmp_path):
    from selenium.webdriver.common.by import By

    audio.write(tmp_path / "mine.wav", tiny.voice(0, 1.5)[None], 16000)
    visit("enhance")
    shows(browser, "Checkpoint", "Recording")
    chosen = "return Array.from(document.querySelectorAll('input'), input => input.value)"
    assert checkpoint in browser.execute_script(chosen)
    browser.find_element(By.CSS_SELECTOR, 'input[type="file"]').send_keys(str(tmp_path / "mine.wav"))
    shows(browser, "mine.wav")
    button = '//button[normalize-space()="Enhance"]'
    until(browser, lambda _: browser.find_element(By.XPATH, button).is_enabled())
    browser.find_element(By.XPATH, button).click()
    shows(browser, "Download")
    into_frame(browser, ".signal")
    names = [item.text.split("\n")[0] for item in browser.find_elements(By.CSS_SELECTOR, ".signal > button")]
    assert names == ["1 · recording", "2 · enhanced"]
    browser.find_element(By.ID, "play").click()
    assert min(until(browser, lambda _: heard(browser)["decoded"])) == pytest.approx(1.5, abs=0.1)


def unharmed(browser) -> bool:
    """No text has become an element or a script, neither on the page nor in the frame that is looked at."""
    return browser.execute_script("return window.ran === undefined && !document.querySelector('[src=x]')")


@pytest.mark.parametrize("page", ["run?run={hostile}", "compare?runs=run:{hostile},run:{train}"])
def test_a_page_shows_the_markup_of_a_record_as_text(made, browser, visit, page):
    visit(page.format(**made[1]))
    until(browser, lambda _: text(browser).count(HOSTILE) >= 4)
    assert unharmed(browser)


def test_the_list_and_the_graph_show_the_markup_of_a_record_as_text(browser, visit):
    visit("")
    until(browser, lambda _: any(HOSTILE in cell for row in cells(browser) for cell in row))
    assert unharmed(browser)
    visit(f"run?pipeline={quote(HOSTILE)}")
    shows(browser, "Click a step")
    assert unharmed(browser)
    into_frame(browser, "svg .step")
    names = browser.execute_script(
        "return Array.from(document.querySelectorAll('title'), item => item.textContent)"
    )
    assert any(HOSTILE in name for name in names)
    assert unharmed(browser)
