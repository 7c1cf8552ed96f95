"""What happened when: two lanes downwards in time, for any of the three stories or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from kernelnotes.errors import BadInput
from kernelnotes.history import KERNEL, Moment
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.output import Output, below

CSS = """
.kn-timeline{list-style:none!important;
margin:.2rem 0 .4rem!important;padding:0!important;font-size:.88rem;line-height:1.4}
.kn-timeline li{margin:0!important;padding:.3rem .6rem .3rem 1rem;border-left:3px solid #0072b2;position:relative}
.kn-timeline li.kn-user{border-left-color:#d55e00}
.kn-timeline li::before{content:"";position:absolute;left:-8px;top:.65rem;width:9px;height:9px;border-radius:50%;
box-sizing:content-box;background:#0072b2;border:2px solid #fff}
.kn-timeline li.kn-user::before{background:#d55e00}
.kn-timeline .kn-when{font-weight:600;font-variant-numeric:tabular-nums;margin-right:.5em}
.kn-timeline .kn-lane{display:inline-block;font-size:.75rem;border-radius:.8em;padding:0 .5em;background:#d6e8f5;
color:#0b3a5c}
.kn-timeline .kn-user .kn-lane{background:#fbe0cf;color:#6b2d00}
.kn-timeline small{display:block;font-size:.75rem}
.kn-served{display:inline-block;font-size:.75rem;border-radius:.3em;padding:0 .4em;margin:.1rem .3rem 0 0;
background:#cdebe0;color:#0b3d2c}
.kn-served.kn-not{background:#fbd9d0;color:#6b1500;font-weight:600}
@media (min-width:640px){.kn-timeline{background:linear-gradient(#0072b2,#0072b2) 5px 0/3px 100% no-repeat,
linear-gradient(#d55e00,#d55e00) calc(50% + 5px) 0/3px 100% no-repeat}
.kn-timeline li{width:50%;box-sizing:border-box;border:0;padding-left:1.4rem}
.kn-timeline li::before{left:0}.kn-timeline li.kn-user{margin-left:50%!important}}
""".replace("\n", "")


def timeline(
    moments: Sequence[Moment],
    served: Sequence[Mapping[str, bool]] = (),
    provenance: Provenance = MODEL,
    caption: str = "",
) -> Output:
    """Two lanes, what the kernel did on the left and what programs did on the right, downwards in time.

    served : for each moment which daemons are served after it, {name: yes or no}; shown under it
    Raises BadInput where there are no moments, or not a `served` for each.
    """
    if not moments or (served and len(served) != len(moments)):
        raise BadInput(f"timeline: {len(moments)} moments and {len(served)} answers to who is served, expected as many")
    items, lines = [], []
    for k, moment in enumerate(moments):
        works = served[k] if served else {}
        pills = "".join(
            f'<span class="kn-served{"" if well else " kn-not"}">{escape(name)} {"works" if well else "fails"}</span>'
            for name, well in works.items()
        )
        items.append(
            f'<li class="kn-{"kernel" if moment.lane == KERNEL else "user"}">'
            f'<span class="kn-when">{escape(moment.date)}</span><span class="kn-lane">{escape(moment.lane)}</span>'
            f"<div>{escape(moment.what)}</div>{pills}<small>{escape(moment.source)}</small></li>"
        )
        told = ", ".join(f"{name} {'works' if well else 'fails'}" for name, well in works.items())
        lines.append(f"{moment.date} {moment.lane}: {moment.what} ({moment.source}){f' [{told}]' if told else ''}")
    foot = f'<div class="kn-head">{below(caption, provenance)}</div>'
    body = f'<div class="kn-out"><ol class="kn-timeline">{"".join(items)}</ol>{foot}</div>'
    return Output(f"<style>{CSS}</style>{body}", f"[timeline, {provenance}]\n" + "\n".join(lines))
