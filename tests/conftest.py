"""Shared fixtures: one thread, tiny models, and a tiny study in a folder of its own.

Each fixture imports what it needs: pytest -n loads this file in a process that only hands out the tests too,
and all wait for it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["ACCELERATE_USE_CPU"] = "true"  # bits are compared, here and in processes that tests start


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The built book is opened where -m names `site`, whatever else an -m leaves in: it may not be built."""
    if "site" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("site")])
        items[:] = [item for item in items if not item.get_closest_marker("site")]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws from torch's own generator is the same every time, whichever tests ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def fresh_figures() -> Iterator[None]:
    """The look of our figures, and none left open."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from paper_lib.figures.styles import use_style

    with mpl.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def tokenizer():
    from paper_lib.study.tasks import character_tokenizer

    return character_tokenizer()


@pytest.fixture
def student(tokenizer):
    """A random Qwen3 student, fresh for every test."""
    from tiny import SHAPE

    from paper_lib.training.models import build_model

    return build_model(SHAPE, tokenizer, seed=0)


@pytest.fixture
def teacher(tokenizer):
    """A random teacher of another shape with the student's vocabulary."""
    from tiny import TEACHER_SHAPE

    from paper_lib.training.models import build_model

    return build_model(TEACHER_SHAPE, tokenizer, seed=1).requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """The folder of the tiny study's models; read it, do not write to it."""
    from tiny import save_models

    directory = tmp_path_factory.mktemp("tiny") / "models"
    save_models(directory)
    return directory


@pytest.fixture
def base(tiny_models):
    """The tiny base: it ends its completions, and some of its answers are right."""
    from paper_lib.training.models import load_model

    return load_model(tiny_models / "base")[0]


@pytest.fixture
def tiny_data(tiny_models, tmp_path, monkeypatch) -> Path:
    """A data folder with the models of the profile "tiny", which is known for the length of the test."""
    from tiny import TINY

    from paper_lib.study import profiles

    monkeypatch.setitem(profiles.PROFILES, TINY.name, TINY)
    data = tmp_path / "data"
    shutil.copytree(tiny_models, data / TINY.models)
    return data
