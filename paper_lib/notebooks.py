"""Where the notebooks are."""

from pathlib import Path

from paper_lib.errors import CompanionError


def notebook_sources(folder: str | Path) -> list[Path]:
    """The numbered Jupytext sources of a folder, in order. Raises CompanionError where there is none."""
    sources = sorted(Path(folder).glob("[0-9][0-9]_*.py"))
    if not sources:
        raise CompanionError(f"no notebooks in {folder}/: run this from the project's own folder")
    return sources
