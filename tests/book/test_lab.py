"""Chapters used by hand: JupyterLab opens each, runs all its cells, and every control moves its picture.

One chapter of each mechanism; all of them where KERNELNOTES_EVERY_CHAPTER is set, as `make bench` does.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser as browsing
import pytest
import toy
from playwright.sync_api import Browser, Page

import book

ROOT = Path(__file__).resolve().parents[2]
EVERY = [f"{name}.ipynb" for name in book.toc_files(ROOT) if (ROOT / f"{name}.ipynb").is_file()]
SOME = [f"book/{name}.ipynb" for name in ("intro", "refault/02-refault-distance", "repair/01-what-a-connection-is")]
SOME += ["book/autofs/03-packet-pipes.ipynb"]
NOTEBOOKS = EVERY if os.environ.get("KERNELNOTES_EVERY_CHAPTER") else SOME

# Show all cells, not only those on the screen; ask no server for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of the chapters, with folders of its own; ended with the tests."""
    folder = tmp_path_factory.mktemp("lab")
    work = toy.write(folder / "toy", ROOT) and folder / "work"
    shutil.copytree(ROOT / "book", work / "book", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "_static"))
    shutil.copytree(folder / "toy" / "book", work / "toy", ignore=shutil.ignore_patterns("_static"))
    for name, content in SETTINGS.items():
        path = folder / "config/lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    own = {f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "config/lab/user-settings"), "IPYTHONDIR": str(folder / "ipython")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={work}"),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | own)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            if process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{base}/api/status", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            process.kill()
        if process.poll() is not None:
            pytest.fail("JupyterLab does not start:\n" + (folder / "log.txt").read_text()[-2000:])
        yield base
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def kernel_is_ready(base: str, notebook: str) -> bool:
    """Whether the notebook has a kernel that is connected and idle; before that, Run asks which kernel is meant."""
    with urllib.request.urlopen(f"{base}/api/sessions", timeout=5) as answer:
        kernels = [session["kernel"] for session in json.load(answer) if session["path"] == notebook]
    return any(kernel["execution_state"] == "idle" and kernel["connections"] for kernel in kernels)


def run_all_cells(page: Page, base: str, notebook: str) -> None:
    """Run the open notebook from its menu, as a reader does, and wait until every cell has run."""
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
    # wait_for_timeout lets the browser's requests through meanwhile, time.sleep would hold them up
    if not browsing.wait(lambda: page.wait_for_timeout(100) or kernel_is_ready(base, notebook), 60):
        pytest.fail("the kernel does not start")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((prompt) => prompt.textContent)"
    ended = f"{prompts}.every((text) => /\\[\\d+\\]/.test(text))"
    failed = "!!document.querySelector('[data-mime-type=\"application/vnd.jupyter.error\"]')"
    if not browsing.wait(lambda: page.evaluate(f"{ended} || {failed}"), 180):
        pytest.fail(f"some cells have not run after 3 minutes: {page.evaluate(prompts)}")


@pytest.mark.parametrize("notebook", ["toy/every-control.ipynb", *NOTEBOOKS])
def test_chapter_runs_and_its_controls_move_in_jupyterlab(
    lab: str, browser: Browser, moved: dict[str, list[str]], notebook: str
) -> None:
    source = json.loads((ROOT / notebook).read_text()) if notebook in NOTEBOOKS else {"cells": [{"cell_type": "code"}]}
    if not any(cell["cell_type"] == "code" for cell in source["cells"]):
        return  # a page of text only
    with browsing.visit(browser, f"{lab}/doc/tree/{notebook}", until="loaded") as seen:
        run_all_cells(seen.page, lab, notebook)
        seen.page.wait_for_timeout(1000)  # widgets are drawn after their cell has ended
        errors = seen.page.query_selector_all(
            '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
        )
        assert [error.text_content() for error in errors] == []
        problems, what = browsing.move_everything(seen.page)
        if what:
            moved[f"JupyterLab {notebook}"] = what
        assert problems == []
        assert [problem for problem in seen.problems if problem.startswith("asks for")] == []
        has_explorers = any("views.explorer(" in "".join(cell.get("source", "")) for cell in source["cells"])
        assert what or not (has_explorers or notebook.startswith("toy"))
