"""What programs printed, kept in the package: it is marked as recorded, and says what the chapter says it says."""

import re

import pytest

from kernelnotes import cdecl, layout, recordings
from kernelnotes.errors import BadInput
from kernelnotes.recordings import stored


@pytest.mark.parametrize("name", stored.transcripts())
def test_every_transcript_names_kernel_command_and_date(name):
    text, origin = recordings.transcript(name)
    assert origin.kind == "recorded"
    assert origin.kernel.startswith("Linux ")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", origin.date)
    assert origin.command
    assert text
    assert text == text.rstrip()


def test_an_unknown_transcript_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match=r"'nothing' is unknown, known are: .*pahole-packet"):
        recordings.transcript("nothing")


def test_a_transcript_is_no_recording_of_accesses_and_a_census_is_none():
    assert not {*stored.transcripts(), "uapi-hazards", "uapi-hazards.json"} & set(recordings.names())


def test_pahole_printed_the_offsets_of_the_model_and_an_attribute_that_the_source_lacks():
    text, _ = recordings.transcript("pahole-packet")
    source = """struct autofs_packet_hdr { int proto_version, type; };
        struct p { struct autofs_packet_hdr hdr; unsigned wait_queue_token, dev; __u64 ino;
                   __u32 uid, gid, pid, tgid, len; char name[256]; };"""
    here = layout.layout(cdecl.parse(source)["struct p"], "i386")
    printed = {name: int(at) for name, at in re.findall(r"(\w+)(?:\[\d+\])?;\s+/\*\s+(\d+)\s+\d+ \*/", text)}
    assert printed == {member.name: member.offset for member in here.members}
    assert f"size: {here.size}," in text
    assert text.endswith("} __attribute__((__packed__));")


def test_the_census_names_headers_by_their_place_below_the_include_folder():
    frame, origin = recordings.census()
    assert {"tail padding", "ioctl number changed"} <= set(frame["kind"])
    assert origin.kind == "recorded"
    assert {"record", "header", "kind", "sizes", "members", "mend"} <= set(frame.columns)
    assert not frame["header"].str.startswith("/").any()
    assert frame.duplicated(["record", "header"]).sum() == 0
    row = frame.set_index("record").loc["struct autofs_v5_packet"]
    assert (row["kind"], list(row["sizes"])) == ("tail padding", [300, 304])


def test_every_tail_padding_of_the_census_changes_the_size_and_moves_no_member():
    frame, _ = recordings.census()
    tails = frame[frame["kind"] == "tail padding"]
    assert len(tails) > 50
    assert all(small != large for small, large in tails["sizes"])
    assert not tails["members"].map(len).any()
