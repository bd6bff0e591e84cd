"""One way to save an animation: a GIF that plays once, its last frame as a PNG, and a JSON as of a figure."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from paper_lib.errors import require
from paper_lib.figures import described, provenance, refuse_empty, rendered_png, write_with_provenance

LONGEST = 10.0  # seconds: nobody should have to wait for the end of a picture, or to stop it
_PER_SECOND = 10  # frames; hundredths of a second is what a GIF counts in
_LAST = 1.5  # seconds for which the last frame stands before a viewer may start again
_COLORS = 64


def save_animation(
    fig: Figure,
    name: str,
    figures_dir: str | Path,
    *,
    draw: Callable[[float], Any],
    profile: str,
    inputs: Sequence[str | Path],
    caption: str,
    seconds: float = 4.0,
) -> Path:
    """Save figures_dir/profile/name as .gif, .png (the last frame) and .json; returns the GIF.

    draw: changes the figure to a share of the animation, from 0 to 1; its layout stays that of the last
    frame. The GIF plays once. inputs, caption, errors and equal bytes as for `save_figure`; ValueError for
    a length outside (0, 8.5] seconds.
    """
    require("seconds", seconds, 0 < seconds <= LONGEST - _LAST, f"in (0, {LONGEST - _LAST:g}]")
    draw(1.0)
    refuse_empty(fig, name)
    alt = described(fig, name, caption)
    sources = [provenance(Path(path)) for path in inputs]
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    still = rendered_png(fig, alt)
    frames = [_frame(fig, draw, share) for share in np.linspace(0, 1, round(seconds * _PER_SECOND) + 1)]
    images = {f"{name}.gif": _gif(frames), f"{name}.png": still}
    path = Path(figures_dir) / profile / f"{name}.json"
    write_with_provenance(images, path, sources, caption=caption, alt=alt)
    return path.with_suffix(".gif")


def _frame(fig: Figure, draw: Callable[[float], Any], share: float) -> Image.Image:
    draw(float(share))
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _gif(frames: Sequence[Image.Image]) -> bytes:
    """All frames in the colours of the last, which has everything: none flickers from frame to frame."""
    # This method keeps the white of the paper white.
    palette = frames[-1].quantize(_COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [1000 // _PER_SECOND] * (len(drawn) - 1) + [round(1000 * _LAST)]
    buffer = io.BytesIO()
    drawn[0].save(buffer, "GIF", save_all=True, append_images=drawn[1:], duration=times, optimize=False)
    return buffer.getvalue()
