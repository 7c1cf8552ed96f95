"""The two lanes of a history: each moment in its own, with its source, and who was served after it."""

import pytest

from kernelnotes.autofs.history import HISTORY as AUTOFS
from kernelnotes.errors import BadInput
from kernelnotes.history import KERNEL, USER, Moment
from kernelnotes.refault.history import HISTORY as REFAULT
from kernelnotes.repair.history import HISTORY as REPAIR
from kernelnotes.views import timeline

HOSTILE = "<img src=x onerror=alert(1)>"


def test_the_story_goes_forward_and_has_both_lanes():
    dates = [event.date for event in AUTOFS]
    assert dates == sorted(dates)
    assert {event.lane for event in AUTOFS} == {KERNEL, USER}
    assert all(event.source for event in AUTOFS)


def test_the_timeline_shows_each_event_in_its_lane_with_its_source():
    shown = timeline(AUTOFS).html
    for event in AUTOFS:
        assert event.source in shown
    assert shown.count('<li class="kn-kernel">') == sum(event.lane == KERNEL for event in AUTOFS)


def test_the_timeline_says_who_is_served_after_each_event():
    moments = AUTOFS[:7]
    served = [{"automount": k % 2 == 0} for k in range(len(moments))]
    shown = timeline(moments, served)
    assert shown.text.count("[automount works]") == 4
    assert shown.html.count("automount fails") == 3
    with pytest.raises(BadInput, match="expected as many"):
        timeline(moments, served[1:])


def test_text_of_an_event_is_shown_and_never_run():
    event = Moment(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    assert "<img" not in timeline([event], [{HOSTILE: True}], caption=HOSTILE).html


@pytest.mark.parametrize("story", [AUTOFS, REFAULT, REPAIR])
def test_every_story_is_shown_with_its_caption(story):
    shown = timeline(story, caption="From the article to today").html
    assert shown.count("<li ") == len(story)
    assert "<span>From the article to today</span>" in shown
