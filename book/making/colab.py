"""Notebooks for Colab: it opens .ipynb files of a repository, and starts on a machine without the project."""

from pathlib import Path

import jupytext
import nbformat

_SETUP = """# The project and what Colab lacks; its own torch is kept.
!git clone --quiet --depth 1 https://github.com/{repository} companion
%cd companion
!pip install --quiet --editable ."""


def for_colab(sources: list[Path], folder: Path, repository: str) -> None:
    """Write each notebook as .ipynb, without outputs, after a cell that fetches `repository` (owner/name).

    They draw from the committed tables until the reader names another profile.
    """
    folder.mkdir(parents=True)
    for source in sources if repository else ():
        notebook = jupytext.read(source)
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace('profile: str = "laptop"', 'profile: str = "reference"')
        notebook.cells.insert(1, nbformat.v4.new_code_cell(_SETUP.format(repository=repository)))
        nbformat.write(notebook, folder / f"{source.stem}.ipynb")
