"""An external preprocessor: the same records as with pcpp, and errors of our own."""

import pytest

from kernelnotes import cdecl, layout
from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live.cpp import Cpp

pytestmark = pytest.mark.needs("32-bit programs")


@pytest.mark.parametrize(("command", "abi", "size"), [("gcc -m64", "x86-64", 304), ("gcc -m32", "i386", 300)])
def test_a_kernel_header_has_the_layout_of_each_width(command, abi, size):
    records = cdecl.parse("#include <linux/auto_fs.h>\n", cpp=Cpp(command))
    assert layout.layout(records["struct autofs_v5_packet"], abi).size == size


def test_defines_and_includes_reach_the_command(tmp_path):
    (tmp_path / "a.h").write_text("typedef char t[N];")
    found = cdecl.parse('#include "a.h"\nstruct s { t x; };', {"N": "5"}, [str(tmp_path)], Cpp("gcc"))
    assert layout.layout(found["s"], "i386").size == 5


def test_what_the_command_refuses_is_bad_input_and_a_missing_command_a_failed_call():
    with pytest.raises(BadInput, match=r"a\.c:2:2: error: #error no"):
        cdecl.parse("\n#error no\n", cpp=Cpp("gcc"), filename="a.c")
    with pytest.raises(CallFailed, match="no-such-cpp"):
        cdecl.parse("", cpp=Cpp("no-such-cpp"))
    with pytest.raises(BadInput, match="malformed"):
        cdecl.parse("", cpp=Cpp("gcc 'a"))
