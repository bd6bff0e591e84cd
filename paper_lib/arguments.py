"""Values of the command line's options."""

import argparse
import ast
from typing import Any


def names(text: str) -> list[str]:
    """One or more names, between commas or spaces."""
    if not (found := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: leave the option out for its default")
    return found


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if (number := count(text)) == 0:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def counts(text: str) -> list[int]:
    """One or more whole numbers, between commas or spaces."""
    return [count(name) for name in names(text)]


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value
