"""A picture with one or two controls, drawn beforehand in all positions, so that it needs no Python to be used.

    def draw(step, memory):
        figure, axes = views.figure(height=2)
        ...
        return views.Frame(figure, f"After {step} accesses the list holds ...")

    views.explorer(draw, title="Two lists", step=views.play(range(40)), memory=[4, 8, 16])

The frames lie in a `Stack` of HTML widgets; `Link`s, which the browser follows by itself, tie each control to the stack
(two axes: a stack of stacks). The same output works in JupyterLab, in a notebook and in a built page without a kernel.
Beside it lies a still version for print and for browsers without JavaScript, hidden otherwise.

Each frame carries `data-kn-values`, the labels its controls must show: tests compare the two.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.output import Output, card, mark, need_alt, own_ids, render
from kernelnotes.views.style import CSS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES, MAX_GZIP = 4_000_000, 250_000  # a page's budget beyond the theme; one explorer may not use up more
MAX_FRAMES = 1000


class Frame(NamedTuple):
    """What `draw` returns: a picture (matplotlib Figure or HTML) and what it shows, in words."""

    picture: Figure | str
    alt: str


@dataclass(frozen=True)
class Play:
    """An axis to be played like a film, see `play`."""

    values: Any
    seconds: float


def play(values: Iterable[object] | Mapping[str, object], seconds: float = 0.7) -> Play:
    """An axis with a Play button beside its slider: one position every `seconds`. For time and steps."""
    if not 0.05 <= seconds <= 60:
        raise BadInput(f"play: {seconds} seconds per position, expected 0.05 to 60")
    return Play(values, seconds)


@dataclass(frozen=True)
class Axis:
    """One control: its name, the values `draw` gets, the labels a reader sees, and which widget shows it."""

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]
    control: str  # "slider", "play", "buttons" or "dropdown"
    seconds: float = 0.7

    @classmethod
    def of(cls, name: str, given: Any) -> Axis:
        """The axis for what the caller gave; raises BadInput naming the axis where it cannot be one.

        Numbers become a slider, `play(...)` a slider with Play, names (a dict or strings) buttons, or a dropdown when
        there are more than four or they are long.
        """
        seconds, control = 0.7, ""
        if isinstance(given, Play):
            seconds, control, given = given.seconds, "play", given.values
        if isinstance(given, Mapping):
            labels, values = tuple(str(key) for key in given), tuple(given.values())
        elif isinstance(given, str) or not isinstance(given, Iterable):
            raise BadInput(f"explorer: axis {name} is {given!r:.60}, expected a range, a list or a dict of values")
        else:
            values = tuple(value.item() if hasattr(value, "item") else value for value in given)
            labels = tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        if len(values) < 2:
            raise BadInput(f"explorer: axis {name} has {len(values)} value(s), a control needs at least 2")
        if len(set(labels)) < len(labels):
            twice = next(label for label, count in Counter(labels).items() if count > 1)
            raise BadInput(f"explorer: axis {name} shows {twice!r} for two of its values")
        if not control:
            numbers = not isinstance(given, Mapping) and all(
                isinstance(v, Real) and not isinstance(v, bool) for v in values
            )
            short = len(labels) <= 4 and sum(map(len, labels)) <= 48
            control = "slider" if numbers else "buttons" if short else "dropdown"
        return cls(name, values, labels, control, seconds)

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")


def explorer(
    draw: Callable[..., tuple[Any, str]],
    *,
    title: str,
    provenance: Provenance = MODEL,
    still: Sequence[Mapping[str, object]] | None = None,
    **axes: Any,
) -> Explorer:
    """One or two controls over frames that `draw(**values)` returns as `Frame(picture, alt)`; a cell displays it.

    Parameters
    ----------
    draw : callable
        Called once per position with one keyword per axis; returns a matplotlib Figure or HTML, and what it shows.
    title : str
        The heading of the explorer.
    provenance : Provenance
        Where the data come from, shown as a mark.
    still : list of dicts
        Positions for print and no-JavaScript, e.g. `[{"step": 0}, {"step": 20, "memory": 8}]`, an axis left out
        standing at its first value; by default the first, middle and last position of the longest axis.
    axes : sequences or dicts
        One or two: a range or list of numbers is a slider, `play(range(n))` a slider with Play, strings or a dict of
        {label: value} buttons or a dropdown. Each control shows the value itself, not its position

    Raises BadInput for unusable axes, a frame without a text alternative, an axis that never changes the picture, and
    frames that exceed a page's budget.
    """
    if not 1 <= len(axes) <= 2:
        raise BadInput(f"explorer: {len(axes)} axes given ({', '.join(axes) or 'none'}), expected one or two")
    made = [Axis.of(name, given) for name, given in axes.items()]
    title = need_alt(title, "explorer (its title)")
    frames = _draw_all(draw, made)
    for k, axis in enumerate(made):
        if not _changes(frames, k):
            raise BadInput(f"explorer: the picture is the same for every value of axis {axis.name}")
    return Explorer(title, provenance, made, frames, _stills(still, made))


def _draw_all(draw: Callable[..., tuple[Any, str]], axes: list[Axis]) -> dict[tuple[int, ...], Frame]:
    """{position: Frame of HTML and alt}, drawn in order; refused as soon as the budget is exceeded."""
    positions = list(itertools.product(*(range(len(axis.values)) for axis in axes)))
    if len(positions) > MAX_FRAMES:
        raise BadInput(f"explorer: {len(positions)} frames, expected at most {MAX_FRAMES}")
    frames: dict[tuple[int, ...], Frame] = {}
    packer, size, packed = zlib.compressobj(6), 0, 0
    for position in _progress(positions):
        values = {axis.name: axis.values[i] for axis, i in zip(axes, position, strict=True)}
        where = "draw(" + ", ".join(f"{name}={value!r:.40}" for name, value in values.items()) + ")"
        with style():
            drawn = draw(**values)
            if not isinstance(drawn, tuple) or len(drawn) != 2:
                raise BadInput(
                    f"explorer: {where} returned {drawn!r:.60}, expected Frame(picture, alt): a picture and words"
                )
            alt = need_alt(drawn[1], f"explorer: {where}")
            frames[position] = Frame(render(drawn[0], alt, f"explorer: {where}"), alt)
        data = json.dumps(frames[position].picture).encode()
        size, packed = size + len(data), packed + len(packer.compress(data))
        if size > MAX_BYTES or packed > MAX_GZIP:
            raise BadInput(
                f"explorer: after {len(frames)} of {len(positions)} frames {size / 1e6:.1f} MB, {packed / 1e3:.0f} kB "
                f"packed; a page may have {MAX_BYTES / 1e6:.0f} MB, {MAX_GZIP / 1e3:.0f} kB packed: "
                "draw fewer marks or fewer frames"
            )
    return frames


def _progress(positions: list[tuple[int, ...]]) -> Iterable[tuple[int, ...]]:
    """The positions behind a progress bar where somebody watches: in a terminal or a notebook, not in a build."""
    kernel = _kernel()
    if kernel is not None and not _attended():
        return positions
    from tqdm.auto import tqdm

    return tqdm(
        positions, desc="drawing", unit="frame", leave=False, delay=1, disable=None if kernel is None else False
    )


def _kernel() -> Any:
    """The Jupyter kernel this runs in, or None."""
    module = sys.modules.get("IPython")
    return getattr(module.get_ipython(), "kernel", None) if module else None


def _attended() -> bool:
    """Whether this kernel could ask a person something: true in JupyterLab, false in a build."""
    return bool(getattr(_kernel(), "_allow_stdin", False))


def _changes(frames: Mapping[tuple[int, ...], Frame], k: int) -> bool:
    """Whether moving axis `k` alone ever changes the picture."""
    first: dict[tuple[int, ...], Any] = {}
    for position, frame in frames.items():
        rest = position[:k] + position[k + 1 :]
        if first.setdefault(rest, frame.picture) != frame.picture:
            return True
    return False


def _stills(still: Sequence[Mapping[str, object]] | None, axes: list[Axis]) -> list[tuple[int, ...]]:
    """Positions of the still version; raises BadInput for an axis or a value that does not exist."""
    if still is None:
        longest = max(range(len(axes)), key=lambda k: len(axes[k].values))
        last = len(axes[longest].values) - 1
        return [tuple(i if k == longest else 0 for k in range(len(axes))) for i in sorted({0, last // 2, last})]
    positions = []
    for wanted in still:
        if unknown := set(wanted) - {axis.name for axis in axes}:
            raise BadInput(
                f"explorer: still names {', '.join(sorted(unknown))}, the axes are {', '.join(a.name for a in axes)}"
            )
        position = []
        for axis in axes:
            value = wanted.get(axis.name, axis.values[0])
            choices: tuple[Any, ...] = axis.labels if value in axis.labels else axis.values
            if value not in choices:
                raise BadInput(f"explorer: still has {axis.name}={value!r}, which is not one of its values")
            position.append(choices.index(value))
        positions.append(tuple(position))
    if not positions:
        raise BadInput("explorer: still is empty, expected at least one position for print")
    return positions


class Explorer(Output):
    """What `explorer` returns: shows controls and frames in a notebook or page; `html` is the still version.

    `frames` maps positions (one index per axis) to the HTML of each frame; the same input gives the same bytes.
    """

    _shown: ClassVar[Counter[str]] = Counter()  # how often each explorer was displayed in this process

    def __init__(
        self,
        title: str,
        provenance: Provenance,
        axes: list[Axis],
        drawn: Mapping[tuple[int, ...], Frame],
        stills: list[tuple[int, ...]],
    ) -> None:
        self.title, self.provenance, self.axes = title, provenance, axes
        whole = json.dumps([title, str(provenance), [a.name for a in axes], [tuple(f) for f in drawn.values()]])
        self.digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        self.frames = {at: self._frame(at, frame, "e") for at, frame in drawn.items()}
        self.head = f'<div class="kn-head"><b>{html.escape(title)}</b>{mark(provenance)}</div>'
        shown = "".join(
            f'<div class="kn-values">{html.escape(self._words(at))}</div>{self._frame(at, drawn[at], "s")}'
            for at in stills
        )
        body = (
            f'<div class="kn-out kn-still" hidden>{self.head}{shown}</div>'
            "<noscript><style>.kn-still[hidden]{display:block!important}</style></noscript>"
        )
        alts = "\n".join(f"{self._words(at)}: {drawn[at].alt}" for at in stills)
        super().__init__(body, f"[{provenance}] {title}\n{alts}")

    def _labels(self, at: tuple[int, ...]) -> dict[str, str]:
        return {axis.title: axis.labels[i] for axis, i in zip(self.axes, at, strict=True)}

    def _words(self, at: tuple[int, ...]) -> str:
        return ", ".join(f"{name} {label}" for name, label in self._labels(at).items())

    def _frame(self, at: tuple[int, ...], frame: Frame, kind: str) -> str:
        place = ".".join(map(str, at))
        picture = own_ids(str(frame.picture), f"{kind}{self.digest[:8]}-{place}-")
        labels = html.escape(json.dumps(self._labels(at), ensure_ascii=False))
        return (
            f'<div class="kn-frame" data-kn-frame="{place}" data-kn-values="{labels}">{card(picture, frame.alt)}</div>'
        )

    def _ipython_display_(self) -> None:
        from IPython import display as shown

        display: Any = shown.display
        display(self.widget())
        display({"text/plain": self.text, "text/html": self.html}, raw=True)

    def widget(self) -> Any:
        """A new ipywidgets box: heading, controls, frames; its model ids are fixed unless a person runs the cell."""
        import ipywidgets as w
        from ipywidgets.widgets.widget_description import DescriptionStyle
        from ipywidgets.widgets.widget_link import Link
        from ipywidgets.widgets.widget_string import HTMLStyle

        ids = self._model_ids()

        def make(kind: Any, *args: Any, **state: Any) -> Any:
            return kind(*args, model_id=next(ids), **state)

        def layout(**state: str) -> Any:
            return make(w.Layout, **state)

        frame_layout, frame_style = layout(width="100%", margin="0"), make(HTMLStyle)

        def text(value: str) -> Any:
            return make(w.HTML, value=value, layout=frame_layout, style=frame_style)

        def stack(children: list[Any]) -> Any:
            return make(w.Stack, children=children, selected_index=0, layout=layout(width="100%"))

        def link(source: Any, trait: str, target: Any, other: str) -> None:
            make(Link, (source, trait), (target, other))

        rows: dict[int, list[Any]] = {}
        for at, frame in self.frames.items():
            rows.setdefault(at[0], []).append(text(frame))
        inner = [stack(row) for row in rows.values()] if len(self.axes) == 2 else [row[0] for row in rows.values()]
        outer = stack(inner)
        controls = []
        for axis, targets in zip(self.axes, [[outer], inner], strict=False):
            control = self._control(axis, make, layout)
            for target in targets:
                link(control, "index", target, "selected_index")
            if axis.control == "play":
                player = make(
                    w.Play,
                    min=0,
                    max=len(axis.values) - 1,
                    interval=round(axis.seconds * 1000),
                    show_repeat=False,
                    layout=layout(width="auto"),
                    style=make(DescriptionStyle),
                )
                link(player, "value", control, "index")
                control = make(
                    w.HBox, [player, control], layout=layout(flex="1 1 20rem", align_items="center", min_width="0")
                )
            controls.append(control)
        outer.add_class("kn-stack")
        bar = make(w.HBox, controls, layout=layout(flex_flow="row wrap", align_items="center", width="auto"))
        head = text(f"<style>{CSS}</style>{self.head}")
        box = make(w.VBox, [head, bar, outer], layout=layout(width="100%", max_width="100%"))
        box.add_class("kn-explorer")
        return box

    def _control(self, axis: Axis, make: Any, layout: Any) -> Any:
        """The widget of one axis at its first value; every kind has an `index` to link to a stack."""
        import ipywidgets as w
        from ipywidgets.widgets.widget_description import DescriptionStyle

        state: dict[str, Any] = {"options": list(axis.labels), "index": 0, "description": axis.title}
        if axis.control == "buttons":
            button_style = make(w.ToggleButtonsStyle, description_width="initial", button_width="auto")
            return make(w.ToggleButtons, **state, style=button_style, layout=layout(width="auto"))
        if axis.control == "dropdown":
            kind, room = w.Dropdown, layout(width="auto", max_width="100%")
            return make(kind, **state, style=make(DescriptionStyle, description_width="initial"), layout=room)
        room = layout(width="auto", flex="1 1 18rem", min_width="0")
        slider_style = make(w.SliderStyle, description_width="initial")
        return make(w.SelectionSlider, **state, style=slider_style, layout=room, continuous_update=True)

    def _model_ids(self) -> Iterator[str | None]:
        """Ids that depend on the content only, so that a book builds to the same bytes; random in a live notebook."""
        if _attended():
            return itertools.repeat(None)
        self._shown[self.digest] += 1
        prefix = f"{self.digest}{self._shown[self.digest]:04x}"
        return (f"{prefix}{number:012x}" for number in itertools.count())
