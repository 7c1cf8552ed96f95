"""An external C preprocessor for `cdecl.parse(..., cpp=Cpp("gcc -m32"))`: the headers as a real compiler sees them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelnotes.cdecl.source import quoted
from kernelnotes.errors import BadInput, CallFailed

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Cpp:
    """A command such as "gcc", "gcc -m32" or "clang": run without a shell, the source on its standard input.

    Called with (source, filename, defines, include); returns the preprocessed text.  Raises BadInput, with the
    compiler's first error, for a source it refuses, and CallFailed where the command cannot be run.
    """

    command: str

    def __call__(self, source: str, filename: str, defines: Mapping[str, str], include: list[str]) -> str:
        """Preprocess; line markers keep the places of the original files."""
        try:
            words = shlex.split(self.command)
        except ValueError as e:
            raise BadInput(f"the preprocessor command {self.command!r} is malformed: {e}") from e
        if not words:
            raise BadInput("the preprocessor command is empty")
        options = [f"-D{name}={value}" for name, value in defines.items()] + [f"-I{path}" for path in include]
        options += ["-iquote", str(Path(filename).parent)]
        text = f'#line 1 "{quoted(filename)}"\n{source}'
        try:
            done = subprocess.run(
                [*words, "-E", "-xc", *options, "-"],
                input=text,
                text=True,
                errors="surrogateescape",
                capture_output=True,
                timeout=TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise CallFailed(getattr(e, "errno", None) or 0, f"preprocessor {self.command!r}: {e}") from e
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise BadInput(first or f"{filename}: {self.command!r} ended with status {done.returncode}")
        return done.stdout
