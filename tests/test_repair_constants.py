"""Names and numbers against the kernel's own headers, as compilers read them: zig's copy of them, and the system's."""

import subprocess
import sys
from enum import IntEnum

import pytest
from elftools.elf.elffile import ELFFile
from installed import ROOTS

from kernelnotes import cdecl, layout
from kernelnotes.repair import constants as c

HEADERS = ("linux/tcp.h", "linux/in.h", "linux/in6.h", "linux/filter.h", "linux/sockios.h", "asm/ioctls.h",
           "asm/socket.h", "linux/bpf.h", "linux/poll.h", "stddef.h")  # fmt: skip
LIBC = ("sys/socket.h", "netinet/tcp.h", "netinet/in.h")  # these do not go together with those

HEADER = ROOTS[0] / "linux/tcp.h"

# What a name of ours is called there, or how it is made there.
ELSEWHERE = {
    **{state.name: f"BPF_{state.name}" for state in c.TcpState},
    "TCPOPT_MSS": "TCPOPT_MAXSEG",
    "TCPOPT_SACK_PERM": "TCPOPT_SACK_PERMITTED",
    "_LOAD_WORD": "BPF_LD | BPF_W | BPF_ABS",
    "_EQUAL": "BPF_JMP | BPF_JEQ | BPF_K",
    "_RETURN": "BPF_RET | BPF_K",
    "_SKF_AD_MARK": "(unsigned)(SKF_AD_OFF + SKF_AD_MARK)",
}
OF_LIBC = {"AF_INET", "AF_INET6", "SOL_SOCKET", "MSG_PEEK", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SHUT_WR",
           "TCPOPT_MSS", "TCPOPT_WINDOW", "TCPOPT_SACK_PERM", "TCPOPT_TIMESTAMP"}  # fmt: skip
OURS = {"MARK"}  # CRIU's: SOCCR_MARK in soccr/soccr.h
# Newer than the headers of Debian 12, or in another of them there.
NEWER = {"TCPI_OPT_USEC_TS"}


def constants():
    """{name: number} of all that the module has."""
    found = {name: value for name, value in vars(c).items() if type(value) is int and name not in OURS}
    for enum in (e for e in vars(c).values() if isinstance(e, type) and issubclass(e, IntEnum) and e is not IntEnum):
        found |= {member.name: int(member) for member in enum}
    return found


def objects(declarations, headers, command, folder):
    """{name: the bytes of it} of constants declared in C, from the object that a compiler wrote; nothing is run."""
    source = "".join(f"#include <{header}>\n" for header in headers) + "\n".join(declarations.values())
    out = folder / "made.o"
    flags = ["-w", "-fno-zero-initialized-in-bss", "-c", "-xc", "-", "-o", str(out)]
    subprocess.run([*command, *flags], input=source, text=True, check=True, cwd=folder)
    with out.open("rb") as file:
        elf = ELFFile(file)
        found = {}
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol.name in declarations:
                data, at = elf.get_section(symbol["st_shndx"]).data(), symbol["st_value"]
                found[symbol.name] = data[at : at + symbol["st_size"]]
    return found


ZIG = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu"]


@pytest.fixture(params=["zig", pytest.param("gcc", marks=pytest.mark.needs("32-bit programs"))])
def compiler(request, tmp_path):
    """Numbers as the compiler has them: `compiler(expressions, headers)`."""
    command = ZIG if request.param == "zig" else ["gcc", "-m64"]

    def ask(expressions, headers=HEADERS):
        names = dict(enumerate(expressions))
        declarations = {f"n{i}": f"const long long n{i} = ({expression});" for i, expression in names.items()}
        made = objects(declarations, headers, command, tmp_path)
        return {text: int.from_bytes(made[f"n{i}"], "little", signed=True) for i, text in names.items()}

    ask.name, ask.command = request.param, command
    return ask


def test_every_constant_is_the_headers(compiler):
    ours = constants()
    known = {name: n for name, n in ours.items() if compiler.name == "zig" or name not in NEWER}
    assert len(known) > 95
    for names, headers in ((known.keys() - OF_LIBC, HEADERS), (OF_LIBC, LIBC)):
        told = compiler([ELSEWHERE.get(name, name) for name in names], headers)
        assert {name: told[ELSEWHERE.get(name, name)] for name in names} == {name: ours[name] for name in names}


def test_no_level_is_mistaken_for_another(compiler):
    levels = {"SOL_SOCKET": c.SOL_SOCKET, "IPPROTO_IP": 0, "IPPROTO_TCP": 6, "IPPROTO_IPV6": 41}
    assert compiler(levels, LIBC) == levels


def test_the_structs_have_the_headers_sizes_and_places(compiler):
    info = "struct tcp_info"
    expected = {
        f"offsetof({info}, tcpi_state)": 0,
        f"offsetof({info}, tcpi_options)": 5,
        f"offsetof({info}, tcpi_notsent_bytes)": c.INFO.size - 4,
        "sizeof(struct tcp_repair_opt)": c.REPAIR_OPT.size,
        "offsetof(struct tcp_repair_opt, opt_val)": 4,
        "sizeof(struct tcp_repair_window)": c.REPAIR_WINDOW.size,
        "sizeof(struct sock_filter)": c.SOCK_FILTER.size,
    } | {f"offsetof(struct tcp_repair_window, {name})": 4 * i for i, name in enumerate(c.Window._fields)}
    assert compiler(expected) == expected


def test_the_window_scales_are_the_two_halves_of_one_byte(compiler, tmp_path):
    declared = {
        name: f"const struct tcp_info {name} = {{ .tcpi_{name} = 15 }};" for name in ("snd_wscale", "rcv_wscale")
    }
    made = objects(declared, HEADERS, compiler.command, tmp_path)
    assert {name: c.INFO.unpack_from(data)[2] for name, data in made.items()} == {
        "snd_wscale": 0x0F,
        "rcv_wscale": 0xF0,
    }


@pytest.mark.skipif(not HEADER.exists(), reason="needs linux/tcp.h. Remedy: apt-get install linux-libc-dev")
def test_our_own_reader_of_c_says_the_same_of_the_systems_header():
    records = cdecl.parse(HEADER.read_text(), include=[str(root) for root in ROOTS])
    info, window, option = (
        layout.layout(records[f"struct tcp_{n}"], "x86-64") for n in ("info", "repair_window", "repair_opt")
    )
    places = {m.name: (m.bit_offset, m.bit_width) for m in info.members}
    assert (places["tcpi_snd_wscale"], places["tcpi_rcv_wscale"]) == ((48, 4), (52, 4))
    assert (places["tcpi_state"], places["tcpi_options"]) == ((0, None), (40, None))
    assert places["tcpi_notsent_bytes"] == (8 * (c.INFO.size - 4), None)
    assert (window.size, option.size) == (c.REPAIR_WINDOW.size, c.REPAIR_OPT.size)
    assert tuple(m.name for m in window.members) == c.Window._fields


def test_the_lock_is_what_the_headers_macros_make(compiler):
    mark = c.MARK
    program = {
        "load": ("BPF_LD | BPF_W | BPF_ABS", 0, 0, "(unsigned)(SKF_AD_OFF + SKF_AD_MARK)"),
        "compare": ("BPF_JMP | BPF_JEQ | BPF_K", 0, 1, f"{mark}"),
        "pass": ("BPF_RET | BPF_K", 0, 0, "0xFFFFFFFF"),
        "drop": ("BPF_RET | BPF_K", 0, 0, "0"),
    }
    told = compiler({part for row in program.values() for part in row if isinstance(part, str)})
    made = [tuple(told.get(part, part) for part in row) for row in program.values()]
    assert list(c.SOCK_FILTER.iter_unpack(c.DROP_UNMARKED)) == made
