"""What programs printed, kept in the package: it is marked as recorded, and says what the chapter says it says."""

import re

import pytest

from kernelnotes import autofs, cdecl, layout, recordings
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


def test_the_recorded_matrix_has_every_cell_and_says_what_the_model_says():
    frame = recordings.outcomes()
    origin = frame.attrs["provenance"]
    assert (origin.kind, origin.kernel[:6]) == ("recorded", "Linux ")
    assert "gcc -m32" in origin.command
    assert "is a model" in origin.command
    assert len(frame) == 144
    assert (frame == autofs.outcomes()).all(axis=None)


SERVED = {  # by the runs of automount, in the order of the names; facts of Debian's program, not of ours
    "automount-i386": ("300", "one two three"),
    "automount-i386-old": ("304", "one two three"),
    "automount-i386-unfixed": ("300", "one"),
    "automount-i386-unfixed-old": ("304", "one two three"),
    "automount-i386-relay": ("300", "one two three"),
    "automount-i386-relay-old": ("304", ""),
    "automount-amd64-unfixed": ("304", "one two three"),
}


@pytest.mark.parametrize("name", SERVED)
def test_automount_asked_for_so_many_bytes_and_served_these_names(name):
    text, _ = recordings.transcript(name)
    wanted, served = SERVED[name]
    assert re.search(r"read\(\d+, .*?, (30[04])\) +=", text)[1] == wanted
    assert " ".join(re.findall(r"^auto/(\w+)/\.$", text, re.M)) == served
    assert text.count("no answer within 3 s: state D, autofs_wait") == 3 - len(served.split())


def test_the_32_bit_automount_took_the_protocol_of_the_second_packet_for_its_type():
    text, _ = recordings.transcript("automount-i386-unfixed")
    assert re.findall(r"handle_packet: type = (\d+)", text) == ["3", "5", "0"]
    assert "unknown packet type 0" in text


def test_the_second_packet_completed_the_first_where_300_bytes_were_sent_and_304_wanted():
    text, _ = recordings.transcript("automount-i386-relay-old")
    first, second = re.findall(r"\(\d+, .*?, (\d+)\) += (\d+)", text)[:2]
    assert (first, second) == (("304", "300"), ("4", "4"))
    types = re.findall(r"handle_packet: type = (\d+)", text)
    [token] = re.findall(r"token (\d+), name one", text)
    assert types == ["3", str(int(token) + 1)]  # what it took for a type is the next request's token
