"""An error is one line that a terminal shows as it is, whatever the names in it hold."""

import pytest

from paper_lib.ground.errors import CompanionError, one_line


@pytest.mark.parametrize(
    ("name", "shown"),
    [("q_proj", "q_proj"), ("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("é\udcff", "é\\udcff")],
)
def test_what_cannot_be_printed_is_escaped(name, shown):
    assert str(CompanionError(f"{name}: save it again")) == f"{shown}: save it again"


def test_a_long_name_leaves_room_for_the_remedy():
    line = one_line("x" * 100_000 + ": save it again")
    assert len(line) < 1000
    assert line.endswith(": save it again")
