"""How long a visitor waits for the dashboard's list of 500 runs, in a browser: under 2 s once it has started.

python benchmarks/dashboard.py [--runs N] [--rounds N] [--out FILE]      needs chromium and chromedriver

Each round starts `diffse dashboard` on a project of N run records and waits until it answers; then a headless
Chromium that has never been there opens it. The clock runs from that request until the page counts all runs and
the table holds lines. The same page is then opened again: nothing has to be loaded and imported any more.
Seconds: median, least and most; and the load of the machine when it began (other work makes all larger).
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffse import paths, runs, storage

PROJECT = Path(__file__).resolve().parents[1]
GOAL_SECONDS = 2.0  # of the first page
PATIENCE = 120.0  # seconds until a round is given up
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run")
FLAGS += ("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1400,1100")
SHOWN = """
const table = document.querySelector('[data-testid="stDataFrame"] canvas tbody tr');
return table !== null && document.body.innerText.includes(arguments[0]);
"""


def make_runs(root: Path, count: int) -> None:
    """`count` records: one that diffse itself has written, with other names, times, states and settings."""
    (root / "params.yaml").write_text("corpora: []\n")
    recipe = {"lr": 1e-4, "steps": 1000, "network": {"name": "ncsnpp", "nf": 128}, "process": {"name": "ouve"}}
    with runs.recorded(root, "train", ("sgmse.demo",), ["train", "sgmse.demo"]) as record:
        record.update(settings={"train.sgmse": recipe}, data={"demo": "0" * 64}, result={"steps": 1000})
    (written,) = paths.runs(root).glob("*.json")
    made = json.loads(written.read_text())
    for place in range(count):
        started = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(minutes=place)
        name = f"{started:%Y%m%dT%H%M%S.%fZ}-train-sgmse.demo"
        state = ("ok", "ok", "ok", "failed", "interrupted")[place % 5]
        own = {"id": name, "started": started.isoformat(), "state": state, "pipeline": f"dvc-{place // 10}"}
        own |= {"settings": {"train.sgmse": recipe | {"lr": place * 1e-6}}}
        own |= {"error": "the loss is not finite" if state == "failed" else None}
        storage.write_json(paths.runs(root) / f"{name}.json", made | own)
    written.unlink()


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[str, float]]:
    """(address of the project's dashboard, seconds until it answered)."""
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(("DIFFSE_", "KFP_"))
    }
    command = [sys.executable, "-m", "diffse", "dashboard", "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=root, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            address = next(
                found[0] for line in server.stdout if (found := re.search(r"http://127[\d.:]+", line))
            )
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=PATIENCE).close()
            yield address, time.perf_counter() - began
        finally:
            server.terminate()


@contextlib.contextmanager
def browsing() -> Iterator[Any]:
    """Headless Chromium with nothing in its cache."""
    from selenium import webdriver

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        raise SystemExit("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            session.get("about:blank")
            yield session
        finally:
            session.quit()


def opened(browser: Any, address: str, count: int) -> float:
    """Seconds until the list of `count` runs is on the page."""
    from selenium.webdriver.support.ui import WebDriverWait

    began = time.perf_counter()
    browser.get(address)
    wait = WebDriverWait(browser, PATIENCE, poll_frequency=0.05)
    wait.until(lambda _: browser.execute_script(SHOWN, f"{count:,}\nall"))
    return time.perf_counter() - began


def measure(root: Path, count: int) -> dict[str, float]:
    """One round."""
    with browsing() as browser, served(root) as (address, start):
        first = opened(browser, address, count)
        browser.get("about:blank")
        return {"server start": start, "first page": first, "page again": opened(browser, address, count)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument(
        "--out", type=Path, default=PROJECT / "benchmarks" / "results" / "dashboard.json", metavar="FILE"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        make_runs(Path(temporary), args.runs)
        rounds = [measure(Path(temporary), args.runs) for _ in range(args.rounds)]
    rows = {}
    print(
        f"{args.runs} runs, {args.rounds} rounds, load {load:.1f}; seconds (first page: goal {GOAL_SECONDS:g})"
    )
    print(f"{'':<14} {'median':>7} {'least':>7} {'most':>7}")
    for name in rounds[0]:
        seconds = [found[name] for found in rounds]
        median = statistics.median(seconds)
        rows[name] = {"median_s": median, "least_s": min(seconds), "most_s": max(seconds)}
        print(f"{name:<14} {median:7.2f} {min(seconds):7.2f} {max(seconds):7.2f}")
    result = {"times": rows, "runs": args.runs, "rounds": args.rounds, "goal_s": GOAL_SECONDS}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result |= {"cores": os.cpu_count(), "load_before": load}
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
