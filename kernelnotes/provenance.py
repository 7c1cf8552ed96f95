"""Where a result comes from: computed by a model, recorded from a kernel earlier, or live from the running one.

Every result object carries one of these and every figure shows it, so that a reader never takes a model
or a recording for a measurement.

>>> print(refault.replay("ABC", 2, "lru").provenance)
model
>>> print(recordings.load("sqlite-lookups").provenance)
recorded: Linux 6.18.44-fc-v782, 2026-11-23, sh sqlite-lookups.sh run
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelnotes.errors import BadInput

KINDS = ("live", "recorded", "model")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What produced a result.

    `kind` is "live", "recorded" or "model"; a live or recorded result names the `kernel` (as `uname -sr` prints it,
    without what its builder appended), the `command` that ran and the `date` (ISO 8601, YYYY-MM-DD).  `over` is where
    a model's input came from, if that was not a model too.  Raises BadInput where one of these is missing.
    """

    kind: str
    kernel: str = ""
    command: str = ""
    date: str = ""
    over: Provenance | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"provenance: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.kind != "model":
            for field in ("kernel", "command", "date"):
                if not getattr(self, field):
                    raise BadInput(f"provenance: a {self.kind} result must name its {field}")

    def __str__(self) -> str:
        """One line for captions: `model`, or `recorded: Linux 6.18.44, 2026-11-23, git log`."""
        if self.kind == "model":
            return f"model, input {self.over}" if self.over else "model"
        return f"{self.kind}: {self.kernel}, {self.date}, {self.command}"

    def joined(self, other: Provenance) -> Provenance:
        """The origin of what was made of two sources, e.g. a figure of two recordings.

        Of a model and something recorded or live comes a model over that.
        """
        if self == other:
            return self
        if self.kind != other.kind:
            return _model_over(self).joined(_model_over(other))
        if self.over and other.over:
            return Provenance(self.kind, over=self.over.joined(other.over))
        if self.over or other.over:
            return self if self.over else other
        parts = [getattr(self, name) for name in ("kernel", "command", "date")]
        others = [getattr(other, name) for name in ("kernel", "command", "date")]
        kernel, command, date = (
            a if b in a.split(" and ") else f"{a} and {b}" for a, b in zip(parts, others, strict=True)
        )
        return Provenance(self.kind, kernel, command, date)


def _model_over(source: Provenance) -> Provenance:
    return source if source.kind == "model" else Provenance("model", over=source)


MODEL = Provenance("model")
