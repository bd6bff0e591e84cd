"""The examples in the docstrings of the equations give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from paper_lib import geometry
from paper_lib.geometry.metrics import METRICS

MODULES = [
    importlib.import_module(f"paper_lib.geometry.{m.name}") for m in pkgutil.iter_modules(geometry.__path__)
]
EXAMPLES = [found for module in MODULES for found in doctest.DocTestFinder().find(module) if found.examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example):
    told: list[str] = []
    doctest.DocTestRunner().run(example, out=told.append)
    assert not told, "".join(told)


def test_each_equation_of_the_catalogue_shows_an_example():
    shown = {example.name for example in EXAMPLES}
    measured = {f"{m.function.__module__}.{m.function.__name__}" for m in METRICS.values()}
    assert measured <= shown
