"""One look for every figure, and one way to save them: SVG, PNG and a JSON that says what they were drawn
from."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from paper_lib import __version__
from paper_lib.errors import CompanionError
from paper_lib.files import sha256, write_bytes, write_json
from paper_lib.styles import BACKDROP
from paper_lib.tables import library_versions, table_metadata


def save_figure(
    fig: Figure,
    name: str,
    figures_dir: str | Path,
    *,
    profile: str,
    inputs: Sequence[str | Path],
    caption: str | None = None,
) -> Path:
    """Save figures_dir/profile/name as .svg, .png (200 dpi) and .json (caption, tables, versions); returns
    the SVG.

    inputs: the files it was drawn from; the JSON gives each its SHA-256 and, for tables, rows and metadata.
    The same figure from the same tables gives the same bytes. Raises CompanionError, and writes nothing,
    for a missing input and where a panel shows nothing finite.
    """
    _refuse_empty(fig, name)
    sources = [_provenance(Path(path)) for path in inputs]
    folder = Path(figures_dir) / profile
    digests = {}
    fig.draw_without_rendering()
    fig.set_layout_engine(
        "none"
    )  # solved once; each format, and the notebook's own picture, would do it again
    with mpl.rc_context({"svg.hashsalt": "paper_lib", "svg.fonttype": "path"}):
        images = {
            f"{name}.svg": _rendered(fig, format="svg", metadata={"Date": None, "Creator": None}),
            f"{name}.png": _rendered(fig, format="png", dpi=200, metadata={"Software": None}),
        }
    for file, content in images.items():
        write_bytes(folder / file, content)
        digests[file] = sha256(folder / file)
    about = {
        "figure": name,
        "profile": profile,
        "caption": caption,
        "files": digests,
        "tables": sources,
        "versions": {
            "paper_lib": __version__,
            **library_versions(),
            "matplotlib": mpl.__version__,
            "seaborn": sns.__version__,
        },
    }
    write_json(folder / f"{name}.json", about)
    return folder / f"{name}.svg"


def _rendered(fig: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, **options)
    return buffer.getvalue()


def _provenance(path: Path) -> dict[str, Any]:
    source: dict[str, Any] = {"name": f"{path.parent.name}/{path.name}"}
    if path.suffix == ".parquet":
        source["metadata"] = table_metadata(path)
        source["rows"] = pq.read_metadata(path).num_rows
    elif not path.is_file():
        raise CompanionError(f"{path} does not exist, and a figure is said to be drawn from it")
    return {**source, "sha256": sha256(path)}


def _refuse_empty(fig: Figure, name: str) -> None:
    panels = [ax for ax in fig.axes if ax.get_visible() and ax.axison]
    drawn_without_axes = [ax for ax in fig.axes if not ax.axison and _shows_something(ax)]
    if not panels and not drawn_without_axes:
        raise CompanionError(f"figure {name} is empty: it has no panel with anything in it")
    for number, ax in enumerate(panels, 1):
        if not _shows_something(ax):
            title = f" ({ax.get_title()})" if ax.get_title() else ""
            raise CompanionError(
                f"figure {name} is empty in panel {number} of {len(panels)}{title}: nothing finite "
                "was drawn; were its runs trained and extracted?"
            )


def _shows_something(ax: Axes) -> bool:
    drawn = [*ax.lines, *ax.collections, *ax.patches, *ax.images, *ax.tables]
    if not ax.axison:
        drawn += ax.texts
    return any(artist.get_gid() != BACKDROP and _is_finite(artist) for artist in drawn)


def _is_finite(artist: Artist) -> bool:
    """Whether at least one point of what the artist shows has finite coordinates, or a finite value."""
    if isinstance(artist, Line2D):
        points = [artist.get_xydata()]
    elif isinstance(artist, PathCollection):
        points = [np.ma.filled(artist.get_offsets(), np.nan)]
    elif isinstance(artist, Collection):
        points = [path.vertices for path in artist.get_paths()]
    elif isinstance(artist, Patch):
        points = [artist.get_patch_transform().transform(artist.get_path().vertices)]
    elif isinstance(artist, AxesImage):
        return bool(np.isfinite(np.ma.filled(np.ma.asarray(artist.get_array(), dtype=float), np.nan)).any())
    else:
        return True
    return any(np.isfinite(np.asarray(each, dtype=float)).all(axis=-1).any() for each in points)
