"""How pictures look: a colour-blind safe palette, a matplotlib style, and the CSS that every output carries with it.

Pictures stand on a light card in light and in dark pages, so their colours are chosen once, against white. Everything
else takes its colours from the page around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, RULE = "#1b1f24", "#57606a", "#d0d7de"
STRONG = "#b34700"  # vermillion for text: the palette's own is too light on white to be read

# Okabe and Ito (2008), yellow and orange last: they are for areas and marks, too light for thin lines or text on white.
PALETTE = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "sky": "#56b4e9",
    "orange": "#e69f00",
    "yellow": "#f0e442",
}

# matplotlib measures with the first; where a reader does not have it, the next ones are nearly as wide.
FONT_NAMES = ["DejaVu Sans", "Bitstream Vera Sans", "Verdana", "Liberation Sans", "Arial"]

WIDTH = 6.6  # inches: the text column of the book

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.prop_cycle": cycler(color=list(PALETTE.values())),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.figsize": (WIDTH, 2.8),
    "figure.constrained_layout.use": True,
    "font.family": ["sans-serif"],
    "font.sans-serif": FONT_NAMES,
    "font.size": 10.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "image.cmap": "cividis",
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 10,
}


@contextmanager
def style() -> Iterator[None]:
    """A context in which matplotlib draws as the book does, starting from its defaults and not from a user's file."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def figure(height: float = 2.8, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A new figure of `width` x `height` inches with one pair of axes, in the book's style; pyplot never sees it."""
    from matplotlib.figure import Figure

    with style():
        made = Figure(figsize=(width, height), layout="constrained")
        return made, made.add_subplot()


# Carried inside every output, so that a page, JupyterLab and a notebook opened on its own in Colab all look alike.
CSS = """
.kn-out{margin:.3rem 0 .6rem!important;padding:0!important;max-width:100%}
.kn-card{background:#fff;color:#1b1f24;border:1px solid #d0d7de;border-radius:6px;padding:8px;box-sizing:border-box}
.kn-scroll{overflow-x:auto;max-width:100%}
.kn-card.kn-scroll{background:linear-gradient(90deg,#fff 40%,#fff0) 0 0/40px 100% no-repeat local,
linear-gradient(270deg,#fff 40%,#fff0) 100% 0/40px 100% no-repeat local,
linear-gradient(90deg,#0003,#0000) 0 0/12px 100% no-repeat scroll,
linear-gradient(270deg,#0003,#0000) 100% 0/12px 100% no-repeat scroll,#fff}
.kn-card svg{display:block;margin:0 auto}
.kn-head,.kn-out figcaption{display:flex;flex-wrap:wrap;gap:.15rem .6rem;align-items:baseline;font-size:.9rem;
line-height:1.4;font-weight:400;margin:.3rem 0;text-align:left;color:inherit}
.kn-head b{font-size:1rem}
.kn-head code{overflow-wrap:anywhere}
.kn-provenance{display:inline-block;font-size:.75rem;line-height:1.5;padding:0 .5em;border-radius:.8em;
background:#e3ebf6;color:#1d3a63;overflow-wrap:anywhere}
.kn-provenance b{font-size:inherit}
.kn-csv{font-size:.75rem;padding:0 .4em}
.kn-live{background:#d5f0de;color:#0b4424}
.kn-recorded{background:#fbe8cc;color:#573800}
.kn-table{border-collapse:collapse;font-size:.88rem;margin:0}
.kn-table caption{caption-side:top;text-align:left;font-weight:600;color:inherit;padding:.2rem 0}
.kn-table th,.kn-table td{padding:.2rem .7rem;text-align:left;vertical-align:top;border:0;background:none;
border-bottom:1px solid rgba(127,127,127,.4)}
.kn-table tbody th.kn-short{white-space:nowrap}
.kn-table .kn-number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.kn-explorer .widget-html-content{width:100%;max-width:100%;line-height:1.4}
.kn-explorer .kn-stack{margin-top:4px}
.kn-explorer .widget-label{margin:0 12px 0 4px}
.kn-explorer .widget-play{margin-right:6px}
.kn-explorer .widget-toggle-buttons{display:flex;flex-wrap:wrap;align-items:center}
.kn-explorer .widget-toggle-button{margin:2px}
.kn-explorer .widget-toggle-button.mod-active{background:#0b5cad;color:#fff}
.kn-explorer .widget-readout{min-width:2.5em;text-align:left;font-weight:600;pointer-events:none}
.kn-note pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.kn-listing pre{margin:0;padding:.5rem;font-size:.8rem;line-height:1.4;tab-size:4;width:max-content;min-width:100%;
box-sizing:border-box;overflow:visible;white-space:pre}
.kn-still[hidden]{display:none}
.kn-still .kn-values{font-weight:600;margin:.5rem 0 .2rem}
@media print{.kn-still[hidden]{display:block!important}.kn-explorer{display:none!important}
.kn-scroll{overflow:visible}.kn-card svg{min-width:0!important}.kn-out figure,.kn-frame{break-inside:avoid}}
""".strip().replace("\n", " ")
