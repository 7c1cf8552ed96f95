"""Packets, ioctl numbers and the matrix of outcomes: against recorded packets, compilers, and recorded real readers."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernelnotes import autofs, cdecl, layout, recordings
from kernelnotes.abi import ABIS
from kernelnotes.autofs import header, matrix, packets
from kernelnotes.errors import BadInput

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "layout_cases.json").read_text())["cases"]
RECORDED = recordings.packets()
ABI_NAMES = st.sampled_from(sorted(ABIS))

# ------------------------------------------------------------------------------------- the headers

V5_SIZES = {  # compiled with the cross compilers of Debian 12
    300: "i386 arc sh4 m68k",
    304: """x86-64 x32 aarch64 arm-eabi hppa mips-o32 mipsel-o32 mips-n64 ppc32 ppc64 ppc64le riscv64 s390-31 s390x
        sparc32 sparc64""",
    312: "alpha",
}


@pytest.mark.parametrize(("size", "abi"), [(size, abi) for size, abis in V5_SIZES.items() for abi in abis.split()])
def test_the_packet_of_protocol_5_has_the_size_that_the_machines_compiler_gave_it(size, abi):
    assert autofs.PACKETS["missing_indirect"].size(abi) == size


@pytest.mark.parametrize("case", [c for c in CASES if c["record"] in autofs.records("i386")], ids=lambda c: c["id"])
def test_every_record_lies_where_the_compilers_put_it(case):
    names = {"x86_64-sysv": "x86-64", "i386-sysv": "i386", "arm-oabi(apcs-gnu)": "arm-oabi"}
    names |= {"win32-msvc": "win32", "win64-msvc": "win64"}
    for abi, answer in case["abis"].items():
        ours = layout.layout(autofs.records(names.get(abi, abi))[case["record"]], names.get(abi, abi))
        expected = answer["expected"]
        assert (ours.size, ours.align) == (expected["size"], expected["align"])
        assert {path: ours[path].offset for path in expected["offsets"]} == expected["offsets"]


def test_stored_cases_of_all_packets_were_found():
    assert {c["record"] for c in CASES} >= {kind.record for kind in autofs.PACKETS.values()}


NUMBERS = {  # as gcc -m64 printed them; -m32 differs in one
    "READY": 0x9360, "FAIL": 0x9361, "CATATONIC": 0x9362, "PROTOVER": 0x80049363, "SETTIMEOUT": 0xC0089364,
    "EXPIRE": 0x810C9365, "EXPIRE_MULTI": 0x40049366, "PROTOSUBVER": 0x80049367, "ASKUMOUNT": 0x80049370,
}  # fmt: skip
DEVICE = "VERSION PROTOVER PROTOSUBVER OPENMOUNT CLOSEMOUNT READY FAIL SETPIPEFD CATATONIC TIMEOUT REQUESTER EXPIRE"


def test_the_ioctl_numbers_are_the_measured_ones_and_one_differs_at_the_other_width():
    expected = {f"AUTOFS_IOC_{name}": number for name, number in NUMBERS.items()}
    device = [*DEVICE.split(), "ASKUMOUNT", "ISMOUNTPOINT"]
    expected |= {f"AUTOFS_DEV_IOCTL_{name}": 0xC0189371 + n for n, name in enumerate(device)}
    assert {name: command.number("x86-64") for name, command in autofs.IOCTLS.items()} == expected
    narrow = {name: command.number("i386") for name, command in autofs.IOCTLS.items()}
    assert dict(narrow.items() - expected.items()) == {"AUTOFS_IOC_SETTIMEOUT": 0xC0049364}
    assert [name for name, command in autofs.IOCTLS.items() if command.device] == list(expected)[len(NUMBERS) :]


@pytest.mark.needs("32-bit programs")
@pytest.mark.parametrize(("flag", "abi"), [("-m32", "i386"), ("-m64", "x86-64")])
def test_the_kernels_own_headers_say_the_same_to_gcc(flag, abi, tmp_path):
    shapes = [layout.layout(record, abi) for name, record in autofs.records(abi).items() if name.startswith("struct a")]
    lines = [f'printf("{name} %lu\\n", (unsigned long){name});' for name in autofs.IOCTLS]
    places = {f"sizeof({shape.record})": shape.size for shape in shapes}
    places |= {f"offsetof({shape.record}, {m.name})": m.offset for shape in shapes for m in shape.members}
    lines += [f'printf("{place} %lu\\n", (unsigned long){place});' for place in places]
    includes = "".join(f"#include <{name}.h>\n" for name in ("stdio", "stddef", "string", "linux/auto_fs"))
    # <linux/string.h> stands nowhere but in the kernel's tree.
    device = Path("/usr/include/linux/auto_dev-ioctl.h").read_text().replace("#include <linux/string.h>", "")
    source = f"{includes}{device}\nint main(void) {{ {' '.join(lines)} return 0; }}"
    command = ["gcc", flag, "-I/usr/include/x86_64-linux-gnu", "-xc", "-", "-o", str(tmp_path / "a")]
    subprocess.run(command, input=source, text=True, check=True)
    printed = subprocess.run([tmp_path / "a"], capture_output=True, text=True, check=True).stdout
    told = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in printed.splitlines()}
    assert told == {name: command.number(abi) for name, command in autofs.IOCTLS.items()} | places


def test_the_struct_of_dev_autofs_has_one_size_on_all_abis():
    assert {layout.layout(autofs.records(abi)["autofs_dev_ioctl"], abi).size for abi in ABIS} == {24}


# ------------------------------------------------------------------------------------- recorded packets


@pytest.mark.parametrize("packet", RECORDED.packets, ids=lambda packet: packet.id)
def test_a_recorded_packet_decodes_to_what_was_known_of_it_and_encodes_to_the_same_bytes(packet):
    decoded = autofs.decode(packet.data, packet.abi)
    fields = {**decoded.fields, "name": decoded.fields["name"].hex(), "proto": decoded.proto, "type": decoded.number}
    assert packet.truth.items() <= fields.items()
    assert (decoded.type, decoded.fields["token"]) == (packet.type, packet.token)
    assert autofs.encode(decoded, packet.abi) == packet.data


def test_the_recorded_packets_are_of_all_protocols_and_marked_as_recorded():
    assert {packet.truth["proto"] for packet in RECORDED.packets} == {3, 4, 5}
    assert (RECORDED.provenance.kind, RECORDED.provenance.kernel) == ("recorded", "Linux 6.18.44 x86_64")


def test_names_that_are_no_utf_8_survive_json():
    told = [autofs.decode(packet.data, packet.abi).as_dict() for packet in RECORDED.packets]
    names = [os.fsencode(row["name"]) for row in json.loads(json.dumps(told))]
    assert b"\xff\xfe new\nline" in names
    assert "données-αβγ-日本語-🐧".encode() in names


def test_the_stream_is_three_packets_to_a_64_bit_reader():
    found = autofs.decode_stream(RECORDED.stream, "x86-64")
    assert [packet.fields["name"].decode() for packet in found] == list(RECORDED.stream_names)
    assert [packet.fields["token"] for packet in found] == list(RECORDED.stream_tokens) == [150, 151, 152]


def test_the_stream_slips_under_a_32_bit_reader_which_sees_a_valid_type_and_a_wrong_token():
    first, second, third, rest = autofs.decode_stream(RECORDED.stream, "i386")
    assert (first.type, first.proto, first.number, first.fields["token"]) == ("missing_indirect", 5, 3, 150)
    assert (second.type, second.proto, second.number, second.fields["token"]) == ("unknown", 0, 5, 3)
    assert second.problem == "protocol 0 has no missing_direct, which is of protocol 5"
    shown = (third.proto, third.number, third.fields["token"], third.fields["dev"])
    assert (third.type, *shown) == ("unknown", 0, 0, 5, 3)
    assert rest.problem == "the stream ends after 12 bytes of a record"
    assert b"".join(autofs.encode(p, "i386") for p in (first, second, third, rest)) == RECORDED.stream


# ------------------------------------------------------------------------------------- what is no packet

GOOD = autofs.make("missing_indirect", token=7, dev=40, ino=1 << 33, uid=1000, gid=0xFFFFFFFF, pid=2, tgid=1, name=b"a")


@pytest.mark.parametrize(("written", "read"), [("x86-64", "i386"), ("i386", "x86-64"), ("alpha", "x86-64")])
def test_a_packet_of_another_size_is_refused_with_both_sizes(written, read):
    data = autofs.encode(GOOD, written)
    expected = autofs.PACKETS["missing_indirect"].size(read)
    with pytest.raises(BadInput, match=rf"missing_indirect on {read} has {expected} bytes, got {len(data)}"):
        autofs.decode(data, read)


@pytest.mark.parametrize("size", [0, 7, 8, 268, 272, 303, 305, 608])
def test_a_truncated_or_oversized_packet_is_refused(size):
    with pytest.raises(BadInput, match=f"got {size}"):
        autofs.decode((autofs.encode(GOOD, "x86-64") * 2)[:size], "x86-64")


@pytest.mark.parametrize("size", [1, 7, 8, 299, 303, 305, 607])
def test_a_stream_that_is_cut_short_is_refused(size):
    with pytest.raises(BadInput, match=rf"{size % 304} bytes are left after {size // 304} packets, expected 304"):
        autofs.decode_stream((autofs.encode(GOOD, "x86-64") * 2)[:size], "x86-64")


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (4, b"\x07", "there is no packet type 7"),
        (4, b"\xff\xff\xff\xff", "there is no packet type -1"),
        (4, b"\x00", "protocol 5 has no missing, which is of protocol 3 and 4"),
        (0, b"\x06", "protocol 6 has no missing_indirect, which is of protocol 5"),
        (40, b"\x00\x01", "a name of 256 bytes, expected 0 to 255"),
        (40, b"\xff\xff\xff\xff", "a name of 4294967295 bytes, expected 0 to 255"),
        (40, b"\x02", "the name of 2 bytes does not end where its NUL is"),
        (40, b"\x00", "the name of 0 bytes does not end where its NUL is"),
        (298, b"x", "the name of 1 bytes does not end where its NUL is"),
        (303, b"x", "the padding is not zero"),
    ],
)
def test_bytes_that_no_kernel_writes_are_an_unknown_record_that_says_why(offset, value, problem):
    data = bytearray(autofs.encode(GOOD, "x86-64"))
    data[offset : offset + len(value)] = value
    found = autofs.decode(bytes(data), "x86-64")
    assert (found.type, found.problem) == ("unknown", problem)
    assert found.as_dict()["problem"] == problem
    assert autofs.encode(found, "x86-64") == data


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (autofs.make("missing_indirect", 4, name=b""), "no packet 'missing_indirect' of number 3 in protocol 4"),
        (autofs.Packet("nonsense", 3, 5, {}), "no packet 'nonsense'"),
        (autofs.Packet("missing", 3, 4, {}), "no packet 'missing' of number 3"),
        (autofs.make("missing", 4, token=1, name=bytes(1)), "expected bytes without NUL"),
        (autofs.make("missing", 4, token=1, name=b"x" * 256), "at most 255"),
        (autofs.Packet("missing", 0, 4, {"token": 1, "len": 2, "name": b"x"}), "len 2"),
        (autofs.Packet("missing", 0, 4, {"token": 1, "len": 1, "name": "x"}), "name is 'x'"),
        (autofs.make("missing", 4, name=b""), "'wait_queue_token' is missing"),
        (autofs.make("missing", 4, token=1 << 32, name=b""), "4294967296 is not in"),
        (autofs.make("missing", 4, token=1, uid=0, name=b""), "no member 'uid'"),
    ],
)
def test_what_cannot_be_written_is_refused(packet, problem):
    with pytest.raises(BadInput, match=problem):
        autofs.encode(packet, "x86-64")


def test_what_is_no_input_at_all_is_refused():
    for call, problem in [
        (lambda: autofs.decode("text", "i386"), "a packet is bytes, got str"),
        (lambda: autofs.decode(b"", "vax"), "unknown ABI 'vax'"),
        (lambda: autofs.decode_stream(bytes(packets.MOST_BYTES + 1), "i386"), "at most 16 MiB"),
        (lambda: autofs.make("nonsense", name=b""), "unknown packet type 'nonsense', expected one of: missing"),
        (lambda: autofs.IOCTLS["AUTOFS_IOC_READY"].number("vax"), "unknown ABI"),
    ]:
        with pytest.raises(BadInput, match=problem):
            call()


@st.composite
def made(draw):
    kind = draw(st.sampled_from(sorted(autofs.PACKETS)))
    members = [m.name for m in autofs.PACKETS[kind].layout("x86-64").members if m.name not in ("hdr", "len", "name")]
    short = {"wait_queue_token": "token"}
    fields = {short.get(m, m): draw(st.integers(0, 2**64 - 1 if m == "ino" else 2**32 - 1)) for m in members}
    name = draw(st.binary(max_size=255).filter(lambda name: 0 not in name))
    return autofs.make(kind, draw(st.sampled_from(autofs.PACKETS[kind].protos)), name=name, **fields)


@given(st.lists(made(), max_size=4), ABI_NAMES)
def test_what_is_encoded_decodes_to_the_same_packets_on_every_abi(wanted, abi):
    assert autofs.decode_stream(b"".join(autofs.encode(packet, abi) for packet in wanted), abi) == wanted


HEADERS = st.builds(
    lambda proto, number: proto.to_bytes(4, "little") + number.to_bytes(4, "little"),
    st.integers(0, 6),
    st.integers(0, 7),
)


@settings(max_examples=500)
@given(HEADERS, st.binary(max_size=300), st.sampled_from([268, 272, 300, 304, 312]), ABI_NAMES)
@example(b"\x05\0\0\0\x03\0\0\0", b"", 304, "x86-64")
def test_any_bytes_are_refused_or_decode_to_something_that_encodes_to_them(start, middle, size, abi):
    data = (start + middle).ljust(size, b"\0")[:size]
    try:
        found = autofs.decode(data, abi)
    except BadInput:
        return
    assert autofs.encode(found, abi) == data
    assert found.type == "unknown" or found.fields["len"] == len(found.fields["name"])


@given(st.binary(max_size=2000), ABI_NAMES)
def test_any_stream_is_refused_or_decodes_to_all_of_its_bytes(data, abi):
    try:
        found = autofs.decode_stream(data, abi)
    except BadInput:
        return
    assert b"".join(autofs.encode(packet, abi) for packet in found) == data
    json.dumps([packet.as_dict() for packet in found])


# ------------------------------------------------------------------------------------- the matrix

MATRIX = json.loads(gzip.decompress((DATA / "autofs_matrix.json.gz").read_bytes()))
KERNELS = {
    "no fix (<=3.2; also the plain revert)": "no fix",
    "Kent a32744d4 (3.3-rc5)": "Kent, 3.3-rc5",
    "Kent backported (3.0.24)": "Kent, 3.0.24",
    "Tokarev comm check (proposal)": "comm check",
    "revert only (fcbf94b9)": "revert",
    "packetized pipe (64f371bc, 3.4-rc5)": "packet pipe",
}
KINDS = {"packet": "packet", "short-read-loop-again": "short", "fail-short": "dies"}


def modelled(cell):
    reader = cell["style"].replace("single-read", "single read").replace("-5", " 5")
    schedule = "burst" if cell["burst"] else "sequential"
    rows = autofs.KERNELS[KERNELS[cell["kernel"]]], autofs.READERS[reader], autofs.MODES[cell["mode"]]
    return autofs.play(*rows, schedule)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_model_does_event_by_event_what_real_readers_were_recorded_to_do(kernel):
    cells = [cell for cell in MATRIX["rows"] if cell["kernel"] == kernel]
    assert len(cells) == 24
    for cell in cells:
        ours = modelled(cell)
        assert (ours.writes, ours.wants) == (cell["size"], cell["want"])
        # At its end the recorder closed the pipe: what loops fails then, and what waited for the next packet sees EOF.
        loops = cell["style"] != "single-read"
        kinds = {kind: name for kind, name in KINDS.items() if not (loops and kind == "fail-short")}
        recorded = [(kinds[kind], *numbers) for kind, *numbers in cell["log"] if kind in kinds]
        assert [event[:6] for event in ours.events if event.kind in KINDS.values()] == recorded


def recorded_result(cell):
    """What the recorder called the outcome, of a cell of ours."""
    if cell.schedule == "burst":
        return list(cell.tokens)
    results = []
    for event in cell.events:
        if event.kind in ("asks", "refused"):
            asked, _ = event.token, results.append("hang" if event.kind == "asks" else "EPIPE")
        elif event.kind == "packet":
            results[-1] = "ok" if event.wakes == asked else f"wrong:{event.token}"
        elif event.kind == "dies":
            results[-1] = "died"
    return results


def test_the_outcomes_are_the_recorded_ones():
    assert len(MATRIX["rows"]) == 144
    for cell in MATRIX["rows"]:
        assert recorded_result(modelled(cell)) == cell["result"], cell


def test_only_the_packet_pipe_suits_all_and_only_32_on_64_needs_it():
    frame = autofs.outcomes(schedules=list(autofs.SCHEDULES))
    assert len(frame) == 6 * 4 * 3 * 3
    assert frame.attrs["provenance"].kind == "model"
    assert set(frame[frame["mode"] != "32-on-64"]["verdict"]) == {"ok"}
    bad = frame[frame["verdict"] != "ok"]
    assert set(bad["kernel"]) == set(autofs.KERNELS) - {"packet pipe"}
    assert set(frame[frame["verdict"] == "ok"]["hangs"]) == {()}


def cell(kernel, reader, mode="32-on-64", schedule="sequential"):
    return autofs.play(autofs.KERNELS[kernel], autofs.READERS[reader], autofs.MODES[mode], schedule)


def test_the_comm_check_would_have_broken_the_automount_of_its_own_year():
    assert cell("comm check", "automount 5.0.6").verdict == "ok"
    assert cell("comm check", "automount 5.0.7").verdict == "garbage"


def test_four_bytes_too_few_hang_the_first_process_until_a_second_one_asks():
    told = cell("Kent, 3.0.24", "automount 5.0.7")
    assert (told.verdict, told.late, told.hangs) == ("hang", (1,), (2, 3))


def test_four_bytes_too_many_leave_an_idle_systemd_waiting_inside_its_loop():
    told = cell("no fix", "systemd", schedule="idle")
    assert [(event.kind, event.got) for event in told.events[1:4]] == [("packet", 300), ("short", 4), ("waits", 4)]
    assert (told.verdict, told.answered, told.hangs) == ("hang", (1,), (2, 3))


def test_the_second_read_of_a_slipped_stream_shows_the_valid_type_5():
    second = [event for event in cell("revert", "systemd").events if event.kind == "packet"][1]
    assert (second.proto, second.type, second.token, second.wakes) == (0, 5, 5, 0)


def test_a_strict_reader_dies_of_the_stray_bytes_and_then_nobody_waits_any_more():
    told = cell("no fix", "single read", schedule="idle")
    assert [event.kind for event in told.events] == ["asks", "packet", "dies", "refused", "refused"]
    assert (told.verdict, told.hangs) == ("dies", ())


def test_four_bytes_less_for_compat_tasks_would_have_been_wrong_for_x32():
    x32 = autofs.Mode("x32-on-64", "x32", "x86-64", "x86_64")
    assert autofs.play(autofs.KERNELS["Kent, 3.3-rc5"], autofs.READERS["systemd"], x32).verdict == "hang"
    assert autofs.play(autofs.KERNELS["no fix"], autofs.READERS["systemd"], x32).verdict == "ok"


def test_ones_own_kernel_and_reader_show_up_and_no_single_size_suits_all():
    fixes = [autofs.Kernel(f"always {size}", (3, 4), lambda task, size=size: size) for size in (300, 304)]

    def patient(want):
        got = yield 4096  # whatever there is
        return got if len(got) >= want else None

    mine = autofs.Reader("mine", "mine", lambda host: host.sizeof, patient)
    frame = autofs.outcomes(readers=[*autofs.READERS.values(), mine], kernels=fixes)
    assert set(frame["kernel"]) == {"always 300", "always 304"}
    assert set(frame["reader"]) == {*autofs.READERS, "mine"}
    told = frame[frame["mode"] == "32-on-64"].groupby("kernel")["verdict"].agg(set)
    assert all(verdicts - {"ok"} for verdicts in told)


@pytest.mark.parametrize(
    ("kernel", "reader", "problem"),
    [
        (matrix.Kernel("mine", (3, 4), lambda task: 0), None, "mine: a packet of 0 bytes, expected 1 to 4096"),
        (matrix.Kernel("mine", (3, 4), lambda task: 3.5), None, "mine: a packet of 3.5 bytes"),
        (None, matrix.Reader("mine", "mine", lambda host: None, matrix.read_on), "mine: a packet of None bytes"),
        (None, matrix.Reader("mine", "mine", lambda host: 300, lambda want: (yield 0)), "mine: a read of 0 bytes"),
        (None, matrix.Reader("mine", "mine", lambda host: 300, lambda want: iter(())), "without a read"),
    ],
)
def test_a_kernel_or_reader_of_ones_own_that_cannot_work_is_refused(kernel, reader, problem):
    kernel, reader = kernel or autofs.KERNELS["no fix"], reader or autofs.READERS["systemd"]
    with pytest.raises(BadInput, match=problem):
        autofs.play(kernel, reader, autofs.MODES["64/64"])


def test_an_unknown_schedule_is_refused():
    with pytest.raises(BadInput, match="unknown schedule 'now', expected one of: sequential, burst, idle"):
        cell("revert", "systemd", schedule="now")


def test_the_declarations_are_c_that_stands_alone():
    assert cdecl.parse(header.PACKETS_H).keys() <= autofs.records("x86-64").keys()


def test_a_reader_that_skips_the_padding_serves_everybody_on_every_plain_pipe():
    # An exercise of the book: what a reader returns is the packet, not all that it has read for it.
    def skip_zeros(want):
        got = yield 4
        while got == bytes(4):
            got = yield 4
        while len(got) < want:
            got += yield want - len(got)
        return got

    careful = autofs.Reader("careful", "d", lambda host: 300, skip_zeros)
    plain = [kernel for kernel in autofs.KERNELS.values() if not kernel.packets]
    for kernel in plain:
        for schedule in autofs.SCHEDULES:
            cell = autofs.play(kernel, careful, autofs.MODES["32-on-64"], schedule)
            assert cell.answered == (1, 2, 3)
            assert cell.tokens == (1, 2, 3)
