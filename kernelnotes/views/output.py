"""What a page shows: one figure, one table, one note or one function's source, each marked live, recorded or model.

Every function returns an `Output`; as the last line of a cell it displays itself. Pictures become SVG inside the page:
their text stays text, the same figure always gives the same bytes, and no id of one picture meets an id of another.
"""

from __future__ import annotations

import hashlib
import html
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.style import CSS, FONT_NAMES, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FONTS = ",".join(f"'{name}'" for name in FONT_NAMES) + ",sans-serif"
SMALLEST_TEXT = 9.0  # CSS pixels: a picture is never shown so narrow that its smallest text falls below


class Output:
    """One piece of a page: `html` is what a browser shows, `text` the same for a terminal; `str()` gives the text."""

    def __init__(self, body: str, text: str) -> None:
        self.html = f"<style>{CSS}</style>{body}"
        self.text = text

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html}


def mark(provenance: Provenance) -> str:
    """The visible mark of a result's origin: `model`, or the kind with kernel, date and command, as an HTML span."""
    if not isinstance(provenance, Provenance):
        raise BadInput(f"provenance is {provenance!r}, expected a Provenance such as kernelnotes.provenance.MODEL")
    kind, colon, rest = str(provenance).partition(":")
    words = f"<b>{html.escape(kind + colon)}</b>{html.escape(rest)}"
    return f'<span class="kn-provenance kn-{provenance.kind}">{words}</span>'


def need_alt(alt: object, whose: str) -> str:
    """`alt` without surrounding space; raises BadInput if it is not a text that says something."""
    if not isinstance(alt, str) or not alt.strip():
        raise BadInput(
            f"{whose}: the text alternative is {alt!r}, expected words for readers who do not see the picture"
        )
    return alt.strip()


# Pictures -----------------------------------------------------------------------------------------------------------


def to_svg(figure: Figure, alt: str) -> str:
    """`figure` as one <svg> element with `alt` as its accessible name; its ids are still matplotlib's, see `own_ids`.

    Raises BadInput where a text is so small that it would have to be enlarged to be read.
    """
    buffer = io.StringIO()
    with style():
        import matplotlib as mpl

        mpl.rcParams["svg.hashsalt"] = "kernelnotes"  # otherwise ids are random
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # A figure made by pyplot would stay open there, and a notebook would show it a second time.
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    width, height = (float(number) for number in box[1].split()[2:])
    body = re.sub(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><").replace('" />', '"/>').strip()
    body = re.sub(r"<[^>]+>", _shorter, body)
    body = re.sub(r"(?<=;base64,)[^\"]+", lambda data: data[0].replace(" ", ""), body)
    texts = re.findall(r"<text.*?</text>", body, flags=re.DOTALL)  # a formula counts by its letters, not its indices
    sizes = [[float(size) for size in re.findall(r"font-size: ([0-9.]+)px", text)] for text in texts]
    smallest = min((max(size) for size in sizes if size), default=12.0)
    natural = width * 96 / 72
    narrowest = width * SMALLEST_TEXT / smallest
    if narrowest > natural + 0.5:
        raise BadInput(f"the figure has text of {smallest:g} pt, which nobody can read; expected at least 7 pt")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}" style="width:100%;height:auto;'
        f"max-width:{natural:.0f}px;min-width:{narrowest:.0f}px;stroke-linejoin:round;stroke-linecap:butt;"
        f'font-family:{FONTS}">{body}'
    )


def _shorter(tag: re.Match[str]) -> str:
    """An SVG tag with coordinates to a hundredth of a point, and without the font that the whole picture has."""
    short = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*(?:; )?", "", tag[0])
    return re.sub(r"-?\d+\.\d{3,}", _rounded, short)


def _rounded(number: re.Match[str]) -> str:
    value = float(number[0])
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.3g}"


def own_ids(svg: str, prefix: str) -> str:
    """`svg` with `prefix` before every id that is referred to and without the others: none can collide in a page."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)


def card(picture: str, alt: str) -> str:
    """A picture on its light card; where it is wider than the page it scrolls inside, also by keyboard."""
    return f'<div class="kn-card kn-scroll" tabindex="0" role="group" aria-label="{html.escape(alt)}">{picture}</div>'


def below(caption: str, provenance: Provenance, link: str = "") -> str:
    """What stands below a figure, as HTML: its caption, if it has one, its mark, and a link to its data."""
    words = f"<span>{html.escape(caption)}</span>" if caption else ""
    return f"{words}{mark(provenance)}{link}"


def show(
    figure: Figure | str | Callable[[], Figure | str],
    alt: str,
    provenance: Provenance = MODEL,
    caption: str = "",
    data: pd.DataFrame | None = None,
) -> Output:
    """One figure for the page: a matplotlib Figure as SVG, or a piece of HTML.

    A function without arguments that returns either is called in the book's `style`: legends and texts get it too.
    `alt` says what is to be seen, for readers who do not see it; `caption` (optional, plain text) stands below, and so
    does a link to `data` as CSV, what the figure draws, without its index.
    Raises BadInput where `alt` is missing or `figure` is neither.
    """
    alt = need_alt(alt, "show")
    with style():
        picture = render(figure() if callable(figure) else figure, alt, "show")
    picture = own_ids(picture, "f" + hashlib.sha256(picture.encode()).hexdigest()[:8])
    link = "" if data is None else csv_link(data, caption or alt)
    foot = f"<figcaption>{below(caption, provenance, link)}</figcaption>"
    body = f'<figure class="kn-out">{card(picture, alt)}{foot}</figure>'
    return Output(body, f"[figure, {provenance}] {alt}")


def render(picture: object, alt: str, whose: str) -> str:
    """HTML of one picture: a Figure becomes SVG, a string stays as it is; raises BadInput for anything else."""
    if isinstance(picture, str) and picture.strip():
        return picture
    if hasattr(picture, "savefig"):
        return to_svg(picture, alt)  # type: ignore[arg-type]
    raise BadInput(f"{whose}: the picture is {picture!r:.60}, expected a matplotlib Figure or a string of HTML")


# Tables, notes, source ----------------------------------------------------------------------------------------------


def cell_text(value: object) -> str:
    """How a value stands in a table: whole numbers in groups of three, others with four digits, nothing as a dash."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN and NaT differ from themselves
        return "–"
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value)
        return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"
    return str(value)


def csv_link(frame: pd.DataFrame, caption: str, index: bool = False) -> str:
    """A link to the data of a table or figure, which are in the link itself: it works from a folder, too.

    It is named by the first sentence of the caption.  Nothing, where the data are more than MOST_CSV letters.
    """
    text = frame.to_csv(index=index, float_format="%.10g")
    if len(text) > MOST_CSV:
        return ""
    name = caption.partition(". ")[0]
    words = f"Data of &quot;{html.escape(name)}&quot; as CSV"
    link = f'href="data:text/csv;charset=utf-8,{quote(text)}"'
    return f' <a class="kn-csv" download="{file_name(name)}.csv" aria-label="{words}" {link}>CSV</a>'


def file_name(words: str) -> str:
    """A name for a file: small letters, digits and hyphens, at most 60."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:60].strip("-") or "data"


MOST_CSV = 100_000  # letters of data that a link carries
SHORT = 20  # letters of row headings that are not broken into lines


def table(frame: pd.DataFrame, caption: str, provenance: Provenance = MODEL, *, index: bool = True) -> Output:
    """`frame` as an accessible table: caption, header cells, numbers right; a wide one scrolls, also by keyboard.

    The index becomes the row headers unless `index` is False. Make a column strings beforehand to show it
    otherwise than `cell_text` does. Raises BadInput where there is no caption or no DataFrame.
    """
    if not hasattr(frame, "columns"):
        raise BadInput(f"table: {type(frame).__name__} given, expected a pandas DataFrame")
    caption = need_alt(caption, "table (its caption)")
    frame = frame.reset_index() if index and frame.index.nlevels > 1 else frame
    heads = [str(name) if not isinstance(name, tuple) else " / ".join(map(str, name)) for name in frame.columns]
    numeric = [all(_is_number(v) for v in frame.iloc[:, k]) for k in range(len(heads))]
    css = [' class="kn-number"' if right else "" for right in numeric]
    corner = str(frame.index.name or "")
    first = (f'<th scope="col">{html.escape(corner)}</th>' if corner else "<td></td>") if index else ""
    top = first + "".join(f'<th scope="col"{c}>{html.escape(head)}</th>' for head, c in zip(heads, css, strict=True))
    rows, labels = [], [cell_text(label) for label in frame.index]
    narrow = ' class="kn-short"' if max(map(len, labels), default=0) <= SHORT else ""
    for label, values in zip(labels, frame.itertuples(index=False, name=None), strict=True):
        side = f'<th scope="row"{narrow}>{html.escape(label)}</th>' if index else ""
        cells = "".join(f"<td{c}>{html.escape(cell_text(v))}</td>" for v, c in zip(values, css, strict=True))
        rows.append(f"<tr>{side}{cells}</tr>")
    body = (
        f'<div class="kn-out"><div class="kn-scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}">'
        f'<table class="kn-table"><caption>{html.escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{mark(provenance)}{csv_link(frame, caption, index)}</div>"
    )
    return Output(body, f"[table, {provenance}] {caption}\n{frame.to_string(index=index)}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def note(text: str, provenance: Provenance = MODEL, *, markup: bool = False) -> Output:
    """Text that a computation gave, kept in its lines; with `markup`, a piece of HTML. Raises BadInput if empty."""
    text = need_alt(text, "note")
    body = text if markup else f"<pre>{html.escape(text)}</pre>"
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text)) if markup else text
    return Output(f'<div class="kn-out kn-note">{body}{mark(provenance)}</div>', f"[{provenance}]\n{plain}")


def listing(text: str, provenance: Provenance = MODEL) -> Output:
    """What a program printed: its lines are not broken, wide ones scroll, also by keyboard. Raises BadInput without."""
    label = html.escape(f"Printed text: {need_alt(text, 'listing').splitlines()[0]}")
    body = f'<div class="kn-scroll" tabindex="0" role="group" aria-label="{label}"><pre>{html.escape(text)}</pre></div>'
    return Output(f'<div class="kn-out kn-listing">{body}{mark(provenance)}</div>', f"[{provenance}]\n{text}")


class Source(Output):
    """The text of a function, highlighted by whatever shows the page."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__("", code)
        head = f'<div class="kn-head"><code>{html.escape(name)}</code>{mark(MODEL)}</div>'
        self.markdown = f"<style>{CSS}</style>\n{head}\n\n```python\n{code}```\n"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/markdown": self.markdown}


def source(thing: Callable[..., object] | type) -> Source:
    """The source of a function or class as it runs, with its full name; of a compiled function, its Python.

    Raises BadInput where Python keeps no source, e.g. for built-in functions.
    """
    plain = inspect.unwrap(getattr(thing, "py_func", thing))
    try:
        code = textwrap.dedent(inspect.getsource(plain))
    except (OSError, TypeError) as error:
        raise BadInput(f"source: {thing!r:.60} has no Python source ({error})") from error
    return Source(f"{plain.__module__}.{plain.__qualname__}", code.rstrip() + "\n")
