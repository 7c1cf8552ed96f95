"""Explorers and outputs without a browser: what they refuse, what they link; same input, same bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import ipywidgets
import numpy as np
import pandas as pd
import pytest

from kernelnotes import views
from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.explorer import Axis
from kernelnotes.views.output import cell_text, to_svg

RECORDED = Provenance("recorded", "Linux 6.18.44", "git log <all>", "2026-11-23")


def words(**values: object) -> tuple[str, str]:
    return f"<p>{values}</p>", f"It says {values}."


def line(step: int) -> views.Frame:
    figure, axes = views.figure(height=1.5)
    axes.plot([0, step], [0, 1], label="<faults> & hits")
    axes.legend()
    return views.Frame(figure, f"A line to {step}.")


# Axes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "control", "labels"),
    [
        (range(3), "slider", ("0", "1", "2")),
        ([0.5, 10.0, 1e6], "slider", ("0.5", "10", "1e+06")),
        (np.array([4, 8]), "slider", ("4", "8")),
        (views.play(range(2)), "play", ("0", "1")),
        (["fifo", "lru"], "buttons", ("fifo", "lru")),
        ({"8 pages": 8, "16 pages": 16}, "buttons", ("8 pages", "16 pages")),
        (list("abcde"), "dropdown", tuple("abcde")),
        (["a name much too long for a button", "another such name"], "dropdown", None),
        ([False, True], "buttons", ("False", "True")),
    ],
)
def test_the_control_follows_from_the_values(given: object, control: str, labels: tuple[str, ...] | None) -> None:
    axis = Axis.of("x", given)
    assert axis.control == control
    assert labels in (None, axis.labels)


def test_draw_gets_plain_values_and_the_readout_shows_them_not_their_positions() -> None:
    got = []

    def draw(memory: int) -> tuple[str, str]:
        got.append(memory)
        return words(memory=memory)

    made = views.explorer(draw, title="Memory", memory=np.array([10, 200]))
    assert got == [10, 200]
    assert [type(value) for value in got] == [int, int]
    assert 'data-kn-values="{&quot;memory&quot;: &quot;200&quot;}"' in made.frames[(1,)]


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({}, "0 axes given"),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, "3 axes given (a, b, c)"),
        ({"step": [1]}, "axis step has 1 value"),
        ({"step": []}, "axis step has 0 value"),
        ({"step": 5}, "axis step is 5"),
        ({"step": "abc"}, "axis step is 'abc'"),
        ({"step": [1, 1]}, "shows '1' for two"),
        ({"step": range(1001)}, "1001 frames, expected at most 1000"),
    ],
)
def test_unusable_axes_are_refused_by_name(axes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        views.explorer(words, title="x", **axes)  # type: ignore[arg-type]
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("drawn", "says"),
    [
        ("<p>x</p>", "expected Frame(picture, alt)"),
        (("<p>x</p>", ""), "draw(step=1): the text alternative is ''"),
        (("<p>x</p>", None), "text alternative is None"),
        (("", "nothing"), "expected a matplotlib Figure or a string of HTML"),
        ((5, "five"), "the picture is 5"),
    ],
)
def test_a_frame_without_picture_or_words_is_refused(drawn: object, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        views.explorer(lambda step: drawn, title="x", step=[1, 2])  # type: ignore[arg-type,return-value]
    assert says in str(caught.value)


def test_an_axis_that_changes_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="the same for every value of axis b"):
        views.explorer(lambda a, b: words(a=a), title="x", a=[1, 2], b=[1, 2])


def test_frames_beyond_the_budget_are_refused_while_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1)
    with pytest.raises(BadInput, match=r"after 4 of 50 frames .* kB packed"):
        views.explorer(lambda step: (noise.bytes(60_000).hex(), "noise"), title="x", step=range(50))
    monkeypatch.setattr(sys.modules["kernelnotes.views.explorer"], "MAX_BYTES", 1000)
    with pytest.raises(BadInput, match="after 2 of 3 frames"):
        views.explorer(lambda step: (f"{step}" * 600, "digits"), title="x", step=range(3))


# What is shown ------------------------------------------------------------------------------------------------------


def models(made: views.Explorer) -> dict[str, dict[str, object]]:
    """The widget's state as a page gets it."""
    from ipywidgets.embed import dependency_state

    return dict(dependency_state([made.widget()], drop_defaults=False))


def test_every_stack_hangs_on_a_control_and_every_control_on_a_stack() -> None:
    made = views.explorer(words, title="x", step=views.play(range(4)), rule=["fifo", "lru", "opt"])
    state = models(made)
    links = [m["state"] for m in state.values() if m["model_name"] == "LinkModel"]

    def ends(one: str, other: str) -> int:
        names = [
            [state[link[e][0].removeprefix("IPY_MODEL_")]["model_name"] for e in ("source", "target")] for link in links
        ]
        return names.count([one, other])

    assert ends("SelectionSliderModel", "StackModel") == 1
    assert ends("ToggleButtonsModel", "StackModel") == 4  # one stack of rules at each step
    assert ends("PlayModel", "SelectionSliderModel") == 1
    assert sum(m["model_name"] == "StackModel" for m in state.values()) == 5


def test_the_same_input_gives_the_same_bytes_in_another_process() -> None:
    script = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ipywidgets.embed import dependency_state
from kernelnotes import views
from test_explorer import line
made = views.explorer(line, title="Line", step=views.play(range(3)))
print(json.dumps([made.html, dependency_state([made.widget()])]))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert "Line" in runs[0].stdout


def test_two_explorers_of_one_content_have_different_models() -> None:
    first, second = (views.explorer(line, title="x", step=[1, 2]) for _ in range(2))
    assert first.html == second.html
    assert not set(models(first)) & set(models(second))


def test_ids_of_different_frames_never_meet() -> None:
    made = views.explorer(line, title="x", step=[1, 2, 3])
    ids = [set(re.findall(r' id="([^"]+)"', frame)) for frame in [*made.frames.values(), made.html]]
    assert all(ids)
    assert all(not one & other for k, one in enumerate(ids) for other in ids[k + 1 :])
    used = [set(re.findall(r'(?:url\(#|href="#)([^)"]+)', frame)) for frame in made.frames.values()]
    assert all(references <= own for references, own in zip(used, ids, strict=False))


def test_stills_are_the_first_middle_and_last_position_or_those_asked_for() -> None:
    frames = re.compile(r'data-kn-frame="([^"]+)"')
    made = views.explorer(words, title="x", rule=["a", "b"], step=range(5))
    assert frames.findall(made.html) == ["0.0", "0.2", "0.4"]
    chosen = views.explorer(words, title="x", rule=["a", "b"], step=range(5), still=[{"rule": "b", "step": 3}, {}])
    assert frames.findall(chosen.html) == ["1.3", "0.0"]
    assert "<noscript><style>" in made.html
    for still, says in [([{"stp": 1}], "names stp"), ([{"step": 9}], "step=9"), ([], "still is empty")]:
        with pytest.raises(BadInput, match=says):
            views.explorer(words, title="x", rule=["a", "b"], step=range(5), still=still)


def test_every_output_shows_where_it_comes_from() -> None:
    frame = pd.DataFrame({"faults": [1]})
    made = views.explorer(words, title="T", provenance=RECORDED, step=[1, 2])
    for html in [
        made.html,
        made.head,
        views.show("<p>x</p>", "x", RECORDED).html,
        views.table(frame, "Faults", RECORDED).html,
        views.note("x", RECORDED).html,
    ]:
        assert re.search(
            r'class="kn-provenance kn-recorded"><b>recorded:</b> Linux 6\.18\.44, 2026-11-23, git log &lt;all', html
        )
    assert 'kn-model"><b>model</b>' in views.source(cell_text).markdown
    with pytest.raises(BadInput, match="expected a Provenance"):
        views.note("x", "model")  # type: ignore[arg-type]


# Pictures, tables, notes --------------------------------------------------------------------------------------------


def test_svg_keeps_its_text_and_carries_no_date_and_no_global_style() -> None:
    svg = to_svg(line(3).picture, 'A "quoted" <line>.')  # type: ignore[arg-type]
    assert "&lt;faults&gt; &amp; hits</text>" in svg
    assert 'role="img" aria-label="A &quot;quoted&quot; &lt;line&gt;."' in svg
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert "2026" not in svg


def test_a_picture_is_never_narrower_than_its_text_can_be_read() -> None:
    figure, axes = views.figure()
    axes.text(0, 0, "small", size=8)
    width = float(re.search(r"min-width:(\d+)px", to_svg(figure, "x"))[1])  # type: ignore[index]
    assert width == pytest.approx(6.6 * 72 * 9 / 8, abs=1)
    axes.text(0, 1, "smaller", size=5)
    with pytest.raises(BadInput, match="text of 5 pt"):
        to_svg(figure, "x")


def test_a_users_matplotlib_settings_do_not_reach_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "path")
    monkeypatch.setitem(mpl.rcParams, "lines.linewidth", 9)
    made = views.explorer(line, title="x", step=[2, 3])
    assert "&lt;faults&gt; &amp; hits</text>" in made.frames[(0,)]
    assert "stroke-width: 9" not in made.frames[(0,)]
    assert mpl.rcParams["lines.linewidth"] == 9


def test_a_pyplot_figure_is_closed_and_a_function_is_drawn_in_style() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    views.show(plt.figure(), "empty")
    assert plt.get_fignums() == before
    assert "data-nothing" in views.show(lambda: '<p data-nothing="">x</p>', "x").html


def test_table_has_caption_headers_and_numbers_to_the_right() -> None:
    frame = pd.DataFrame({"faults": [1234567, 5], "ok": [True, None], "rule": ["<fifo>", "lru"]}, index=["a", "b"])
    html = views.table(frame, "Faults & hits").html
    assert "<caption>Faults &amp; hits</caption>" in html
    assert (
        '<th scope="row" class="kn-short">a</th><td class="kn-number">1,234,567</td><td>yes</td><td>&lt;fifo&gt;</td>'
        in html
    )
    assert '<th scope="col" class="kn-number">faults</th>' in html
    assert 'tabindex="0" role="region" aria-label="Faults &amp; hits"' in html
    assert '<th scope="row"' not in views.table(frame, "x", index=False).html
    assert '<th scope="row">' in views.table(frame.rename(index={"a": "a heading of many words"}), "x").html
    with pytest.raises(BadInput, match="caption"):
        views.table(frame, " ")
    with pytest.raises(BadInput, match="expected a pandas DataFrame"):
        views.table([1], "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (1 / 3, "0.3333"),
        (123456.7, "123,457"),
        (np.int64(4096), "4,096"),
        (float("nan"), "–"),
        (pd.NaT, "–"),
    ],
)
def test_values_in_tables(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_note_and_source() -> None:
    assert "<pre>1 &lt; 2</pre>" in views.note("1 < 2").html
    assert "<b>1</b>" in views.note("<b>1</b>", markup=True).html
    shown = views.source(cell_text)
    assert "kernelnotes.views.output.cell_text" in shown.markdown
    assert "```python\ndef cell_text(" in shown.markdown
    assert str(shown).startswith("def cell_text(")
    with pytest.raises(BadInput, match="no Python source"):
        views.source(len)


def test_palette_colours_stand_out_from_each_other_and_ink_from_paper() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in (views.INK, views.GREY, views.STRONG):
        assert 1.05 / (luminance(text) + 0.05) > 4.5
    assert all(one != other for one, other in pairwise(views.PALETTE.values()))


def test_a_run_without_a_person_shows_no_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    views.explorer(words, title="x", step=range(20))
    assert capfd.readouterr() == ("", "")


def test_model_is_the_default() -> None:
    assert views.explorer(words, title="x", step=[1, 2]).provenance is MODEL
    assert isinstance(views.explorer(words, title="x", step=[1, 2]).widget(), ipywidgets.VBox)
    assert json.loads(json.dumps(views.note("x")._repr_mimebundle_()))["text/plain"] == "[model]\nx"


def test_a_table_carries_its_data_as_csv():
    frame = pd.DataFrame({"a, b": [1, 2], "ü": ["<x>", 'quo"te']}, index=pd.Index(["one", "two"], name="row"))
    html = views.table(frame, 'A "good" table').html
    [link] = re.findall(
        r'<a class="kn-csv" download="a-good-table.csv" [^>]*href="data:text/csv;charset=utf-8,([^"]*)"', html
    )
    assert unquote(link) == frame.to_csv()
    assert 'aria-label="Data of &quot;A &quot;good&quot; table&quot; as CSV"' in html
    big = pd.DataFrame({"n": range(views.output.MOST_CSV)})
    assert 'kn-csv"' not in views.table(big, "Too much for a link").html
