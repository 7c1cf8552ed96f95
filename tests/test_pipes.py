"""The model of a pipe against what was measured on Linux 6.18.44 with 32- and 64-bit programs; see also tests/live."""

import errno

import pytest

from kernelnotes import pipes
from kernelnotes.errors import BadInput

A, B, C = (letter * 304 for letter in (b"A", b"B", b"C"))
BOTH = pytest.mark.parametrize("make", [pipes.BytePipe, pipes.PacketPipe])


def filled(pipe, *writes):
    for data in writes:
        assert pipe.write(data) == len(data)
    return pipe


def reads(pipe, *sizes):
    """What reads of these sizes return, EAGAIN in place of bytes where one would have to wait."""
    got = []
    for size in sizes:
        try:
            got.append(pipe.read(size))
        except BlockingIOError as e:
            got.append(errno.errorcode[e.errno])
    return got


@pytest.mark.parametrize(
    ("writes", "sizes", "plain", "packet"),
    [
        ([A, B], [300, 300, 300], [A[:300], A[:4] + B[:296], B[:8]], [A[:300], B[:300], "EAGAIN"]),
        ([A, B, C], [4096] * 3, [A + B + C, "EAGAIN", "EAGAIN"], [A, B, C]),
        ([A[:300]], [304, 4], [A[:300], "EAGAIN"], [A[:300], "EAGAIN"]),
        ([A[:300], B[:300]], [304, 304], [A[:300] + B[:4], B[:296]], [A[:300], B[:300]]),
        ([A, B[:10]], [1, 1], [b"A", b"A"], [b"A", b"B"]),
        ([A], [0, 304], [b"", A], [b"", A]),
        ([bytes(4097)], [8192, 8192], [bytes(4097), "EAGAIN"], [bytes(4096), bytes(1)]),
        ([bytes(10000)], [8192] * 3, [bytes(8192), bytes(1808), "EAGAIN"], [bytes(4096), bytes(4096), bytes(1808)]),
    ],
)
def test_what_reads_get_of_a_byte_pipe_and_of_a_packet_pipe(writes, sizes, plain, packet):
    assert reads(filled(pipes.BytePipe(), *writes), *sizes) == plain
    assert reads(filled(pipes.PacketPipe(), *writes), *sizes) == packet


@BOTH
def test_writing_nothing_is_no_packet(make):
    assert reads(filled(make(), b""), 1) == ["EAGAIN"]


def test_writev_makes_one_packet_which_is_split_at_the_page_only():
    pipe = pipes.PacketPipe()
    assert pipe.writev([A[:100], B[:204]]) == 304
    assert pipe.writev([bytes(4000), bytes(200)]) == 4200
    assert [len(got) for got in reads(pipe, 9000, 9000, 9000)] == [304, 4096, 104]


@BOTH
def test_at_the_end_a_read_gets_what_is_left_and_then_nothing(make):
    pipe = filled(make(), A)
    pipe.read(300)
    pipe.close_write()
    assert reads(pipe, 300, 300) == ([A[:4], b""] if make is pipes.BytePipe else [b"", b""])


@BOTH
def test_without_a_reader_a_write_is_refused_but_not_one_of_nothing(make):
    pipe = make()
    pipe.close_read()
    assert pipe.write(b"") == 0
    with pytest.raises(BrokenPipeError):
        pipe.write(b"x")


@pytest.mark.parametrize(
    ("make", "size", "packets"), [(pipes.PacketPipe, 1, 16), (pipes.BytePipe, 1, 65536), (pipes.BytePipe, 304, 208)]
)
def test_a_full_pipe_holds_16_packets_or_208_packets_worth_of_bytes_or_65536_bytes(make, size, packets):
    pipe = filled(make(), *[bytes(size)] * packets)
    with pytest.raises(BlockingIOError):
        pipe.write(bytes(size))


def test_a_pipe_of_1_mib_holds_256_packets_and_is_not_made_smaller_than_what_it_holds():
    pipe = pipes.PacketPipe()
    assert pipe.resize(1 << 20) == 1 << 20
    filled(pipe, *[A] * 256)
    assert pipe.left == 256 * 304
    with pytest.raises(OSError, match="busy") as refused:
        pipe.resize(1 << 19)
    assert refused.value.errno == errno.EBUSY
    assert pipe.size == 1 << 20


def test_a_size_is_rounded_up_to_a_power_of_two_of_at_least_a_page():
    assert [pipes.BytePipe().resize(size) for size in (0, 1, 4097, 65537)] == [4096, 4096, 8192, 131072]
    with pytest.raises(OSError, match="Invalid"):
        pipes.BytePipe().resize((1 << 31) + 1)


def test_the_flag_of_the_moment_of_a_write_decides_and_a_packet_behind_plain_bytes_is_added_to_them():
    pipe = pipes.Pipe()
    for letters, packets in [(b"AAA", False), (b"BBB", True), (b"CCC", True), (b"DDD", False), (b"EEE", False)]:
        pipe.packets = packets
        pipe.write(letters)
    assert reads(pipe, 100) == [b"AAABBBCCCDDDEEE"]
    pipe.packets = True
    filled(pipe, b"BBB", b"CCC")
    pipe.packets = False
    filled(pipe, b"DDD", b"EEE")
    assert reads(pipe, 100, 100, 100) == [b"BBB", b"CCC", b"DDDEEE"]


def test_a_step_tells_what_was_thrown_away_what_is_left_and_where_in_the_stream_it_began():
    pipe = filled(pipes.PacketPipe(), A, B)
    assert pipe.take(300) == (A[:300], A[:4], 304, 0)
    assert pipe.take(300) == (B[:300], B[:4], 0, 304)
    pipe = filled(pipes.BytePipe(), A, B)
    pipe.take(300)
    assert pipe.take(300) == (A[:4] + B[:296], b"", 8, 300)


def test_a_read_of_less_than_nothing_is_refused():
    with pytest.raises(BadInput, match="read of -1 bytes"):
        pipes.BytePipe().read(-1)
