"""A page of HTML as a PDF, by a Chromium that needs no display."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from kernelnotes.errors import Unavailable

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120  # seconds that it may take


def pdf(page: str) -> bytes:
    """A tagged PDF with an outline.  The page gets nothing from the network.

    Raises Unavailable where there is no browser, or it does not print.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), "")
    if not browser:
        raise Unavailable(f"a PDF needs one of {', '.join(BROWSERS)}: install it, or print the HTML from your browser")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(page, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
        command += [f"--user-data-dir={folder}/profile", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
        command += ["--export-tagged-pdf", f"--print-to-pdf={made}", source.as_uri()]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired as e:
            raise Unavailable(f"PDF: {browser} did not print within {PATIENCE} s") from e
        if ended.returncode or not made.exists():
            why = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(f"PDF: {browser} printed none: {''.join(why)}")
        return made.read_bytes()
