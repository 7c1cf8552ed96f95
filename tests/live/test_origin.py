"""What a live result says of the kernel and the day."""

import platform
from datetime import date

import pytest

from kernelnotes.live.origin import kernel, provenance, upstream


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44", "6.18.44"),
        ("6.1.0-28-amd64", "6.1.0"),
        ("6.6.87.2-microsoft-standard-WSL2", "6.6.87.2"),
        ("6.12.12+bpo-amd64", "6.12.12"),
        ("6.18.0-rc3-00017-gdeadbeef+", "6.18.0-rc3"),
        ("not a number", "not a number"),
    ],
)
def test_what_the_builder_of_a_kernel_appended_is_left_out(release, version):
    assert upstream(release) == version


def test_it_names_this_kernel_and_today():
    told = provenance("true")
    assert (told.kind, told.command, told.date) == ("live", "true", f"{date.today()}")
    assert (told.kernel, told.kernel[-1].isdigit()) == (kernel(), True)
    assert f"{platform.system()} {platform.release()}".startswith(kernel())
