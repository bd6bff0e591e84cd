"""The one exception that is meant for the person at the keyboard, and the checks of a setting."""

from functools import cache
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class CompanionError(Exception):
    """One line for the user: what was wrong, where, and what to do about it.

    The command line and the notebook runner print it as `error: …` and exit with status 2, without a
    traceback. Metric functions raise ValueError instead, with the offending value and the shapes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


_LONGEST = 1000  # characters of a line; the remedy is at its end


def one_line(text: str) -> str:
    """A text as one line that a terminal shows as it is: a name that a file gives may hold anything."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 3 :]}"


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Raise ValueError with the value and its range unless it is valid."""
    if not valid:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def require_counts(settings: Any, *names: str) -> None:
    """Raise ValueError unless each of these fields of a dataclass is at least 1."""
    for name in names:
        require(name, getattr(settings, name), getattr(settings, name) >= 1, "at least 1")


def require_choices(settings: Any) -> None:
    """Raise ValueError unless every field of a dataclass whose type is a Literal, or a Literal or None, holds
    one of its values: Python itself would take a misspelt one."""
    for name, allowed in _choices(settings.__class__).items():
        value, expected = getattr(settings, name), "one of " + ", ".join(map(str, allowed))
        require(name, value, value in allowed, expected)


@cache
def _choices(kind: type) -> dict[str, list[Any]]:
    """By field, the values that its Literal type allows, alone or in a union."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        parts = get_args(hint) if get_origin(hint) is Union else (hint,)
        allowed = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
        if allowed:
            found[name] = allowed + [None] * (NoneType in parts)
    return found
