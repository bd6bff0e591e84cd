"""One way to save a figure (SVG, PNG) or an animation (GIF), and a JSON that says what it was drawn from."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from paper_lib import __version__
from paper_lib.figures.words import alt_text, told
from paper_lib.ground.errors import CompanionError, require
from paper_lib.ground.files import sha256, write_bytes, write_json
from paper_lib.ground.tables import library_versions, table_metadata

_UNDATED = {"Date": None, "Creator": None}


def save_figure(
    fig: Figure, name: str, folder: str | Path, *, inputs: Sequence[str | Path], caption: str
) -> Path:
    """Save folder/name as .svg, .png (200 dpi) and .json (words, tables, versions); returns the SVG.

    inputs: the files it was drawn from; the JSON gives each its SHA-256 and, for tables, rows and metadata.
    caption: what is shown; with the numbers drawn it becomes the alt text, which all three files carry. The
    same figure from the same tables gives the same bytes. Raises CompanionError, and writes nothing, for a
    missing input or caption and where nothing finite was told of a panel (`words.tell`).
    """
    alt, sources = _ready(fig, name, inputs, caption)
    with mpl.rc_context({"svg.hashsalt": "paper_lib", "svg.fonttype": "path"}):
        images = {
            f"{name}.svg": _titled(_rendered(fig, format="svg", metadata=_UNDATED), name, caption, alt),
            f"{name}.png": rendered_png(fig, alt),
        }
    return write_with_provenance(images, Path(folder) / f"{name}.json", sources, caption=caption, alt=alt)


def write_with_provenance(
    images: Mapping[str, bytes], path: Path, sources: Sequence[dict[str, Any]], *, caption: str, alt: str
) -> Path:
    """Write the images, by file name, beside `path`, then `path`: words, digests, sources and versions; the
    path of the first image."""
    digests = {}
    for file, content in images.items():
        write_bytes(path.parent / file, content)
        digests[file] = sha256(path.parent / file)
    versions = {"paper_lib": __version__, "matplotlib": mpl.__version__, "seaborn": sns.__version__}
    about: dict[str, Any] = {"figure": path.stem, "profile": path.parent.name, "caption": caption, "alt": alt}
    about |= {"files": digests, "tables": list(sources), "versions": library_versions() | versions}
    write_json(path, about)
    return path.parent / next(iter(images))


def _ready(
    fig: Figure, name: str, inputs: Sequence[str | Path], caption: str
) -> tuple[str, list[dict[str, Any]]]:
    """The alt text and the sources of a figure; CompanionError where it is empty or has no caption. Its
    layout is solved once: each format, and the notebook's own picture, would do it again."""
    refuse_empty(fig, name)
    if not caption.strip():
        raise CompanionError(f"figure {name} has no caption: say in a sentence or two what it shows")
    alt, sources = alt_text(fig, caption), [provenance(Path(path)) for path in inputs]
    fig.draw_without_rendering()
    fig.set_layout_engine(None)
    return alt, sources


def rendered_png(fig: Figure, alt: str) -> bytes:
    """A figure as PNG (200 dpi) with its alt text as description, and nothing that changes by the day."""
    return _rendered(fig, format="png", dpi=200, metadata={"Software": None, "Description": alt})


def _titled(svg: bytes, name: str, caption: str, alt: str) -> bytes:
    """The SVG as one image to a screen reader: its caption the title, its alt text the description."""
    before, inside = svg.split(b"<svg ", 1)
    head, rest = inside.split(b">", 1)
    opening = f'<svg role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc" '
    words = f'<title id="{name}-title">{escape(caption)}</title>\n<desc id="{name}-desc">{escape(alt)}</desc>'
    return b"".join([before, opening.encode(), head, b">\n", words.encode(), rest])


def _rendered(fig: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, **options)
    return buffer.getvalue()


def provenance(path: Path) -> dict[str, Any]:
    """A file that a figure is drawn from: name, SHA-256 and, for a table, rows and metadata."""
    source: dict[str, Any] = {"name": f"{path.parent.name}/{path.name}"}
    if path.suffix == ".parquet":
        source["metadata"] = table_metadata(path)
        source["rows"] = pq.read_metadata(path).num_rows
    elif not path.is_file():
        raise CompanionError(f"{path} does not exist, and a figure is said to be drawn from it")
    return {**source, "sha256": sha256(path)}


def refuse_empty(fig: Figure, name: str) -> None:
    """Raise CompanionError for a figure without a panel, and where nothing finite was told of a panel but
    what is drawn aside; panels without axes may stay blank."""
    panels = [ax for ax in fig.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    panels = [ax for ax in panels if ax.axison or told(ax)]
    if not panels:
        raise CompanionError(f"figure {name} is empty: it has no panel with anything in it")
    for number, ax in enumerate(panels, 1):
        if all(series.aside or series.empty for series in told(ax)):
            title = f" ({ax.get_title()})" if ax.get_title() else ""
            raise CompanionError(
                f"figure {name} is empty in panel {number} of {len(panels)}{title}: nothing finite was drawn "
                "(were its runs trained and extracted?), or what was drawn was not told; see `words.tell`"
            )


LONGEST = 10.0  # seconds: nobody should have to wait for the end of a picture, or to stop it
_PER_SECOND = 10  # frames; hundredths of a second is what a GIF counts in
_LAST = 1.5  # seconds for which the last frame stands before a viewer may start again
_COLORS = 64


def save_animation(
    fig: Figure,
    name: str,
    folder: str | Path,
    *,
    draw: Callable[[float], Any],
    inputs: Sequence[str | Path],
    caption: str,
    seconds: float = 4.0,
) -> Path:
    """Save folder/name as .gif, .png (the last frame) and .json; returns the GIF.

    draw: changes the figure to a share of the animation, from 0 to 1; its layout stays that of the last
    frame. The GIF plays once. inputs, caption, errors and equal bytes as for `save_figure`; ValueError for
    a length outside (0, 8.5] seconds.
    """
    require("seconds", seconds, 0 < seconds <= LONGEST - _LAST, f"in (0, {LONGEST - _LAST:g}]")
    draw(1.0)
    alt, sources = _ready(fig, name, inputs, caption)
    still = rendered_png(fig, alt)
    frames, canvas = [], FigureCanvasAgg(fig)
    for share in np.linspace(0, 1, round(seconds * _PER_SECOND) + 1):
        draw(float(share))
        canvas.draw()
        frames.append(Image.fromarray(np.array(canvas.buffer_rgba())[..., :3]))
    images = {f"{name}.gif": _gif(frames), f"{name}.png": still}
    return write_with_provenance(images, Path(folder) / f"{name}.json", sources, caption=caption, alt=alt)


def _gif(frames: Sequence[Image.Image]) -> bytes:
    """All frames in the colours of the last, which has everything: none flickers from frame to frame."""
    # This method keeps the white of the paper white.
    palette = frames[-1].quantize(_COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [1000 // _PER_SECOND] * (len(drawn) - 1) + [round(1000 * _LAST)]
    buffer = io.BytesIO()
    drawn[0].save(buffer, "GIF", save_all=True, append_images=drawn[1:], duration=times, optimize=False)
    return buffer.getvalue()
