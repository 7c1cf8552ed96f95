"""What a running kernel counted for traces that follow from their arguments: `live.refault.measure`, kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernelnotes.errors import BadInput
from kernelnotes.recordings.stored import _origin, _stored

if TYPE_CHECKING:
    from kernelnotes.refault import Measured

_FIELDS = ("trace", "memory", "accesses", "faults", "refaults", "evictions", "sample_period", "hit_us", "miss_us")


def as_dict(measured: Measured) -> dict[str, Any]:
    """What is kept of a measurement, for JSON."""
    kept = {name: getattr(measured, name) for name in _FIELDS}
    return kept | {"rules": measured.rules.name, "series": measured.series.to_dict("list")}


def measured(trace: str, sample: int = 0) -> Measured:
    """The measurement that comes with the package for the trace of that name, watched every `sample` accesses or not.

    Raises BadInput, with the known ones, if there is none.
    """
    import pandas as pd  # only for those who replay

    from kernelnotes.refault import Measured, Rules
    from kernelnotes.refault.rules import running_kernel

    stored = _stored("measured")
    known = [(row["trace"], row["sample_period"]) for row in stored["runs"]]
    if (trace, sample) not in known:
        names = ", ".join(dict.fromkeys(name for name, _ in known))
        raise BadInput(f"measured: {trace!r} with sample={sample} is unknown, known are with 0 and 512: {names}")
    row = stored["runs"][known.index((trace, sample))]
    return Measured(
        **{name: row[name] for name in _FIELDS},
        rules=Rules(row["rules"], running_kernel, source="the kernel that was recorded"),
        activations=None,
        refault_activations=None,
        deactivations=None,
        soft_faults=0,
        distances=np.zeros(0, dtype=np.int64),
        series=pd.DataFrame(row["series"]),
        provenance=_origin(stored),
    )
