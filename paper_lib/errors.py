"""The one exception that is meant for the person at the keyboard, and the check of a setting."""

from typing import Any


class CompanionError(Exception):
    """One line for the user: what was wrong, where, and what to do about it.

    The command line and the notebook runner print it as `error: …` and exit with status 2, without a
    traceback. Metric functions raise ValueError instead, with the offending value and the shapes.
    """


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Raise ValueError with the value and its range unless it is valid."""
    if not valid:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
