"""The update's geometry inside a training run: watched as it forms, and confined where asked."""

from paper_lib.live.callbacks import GeometryCallback
from paper_lib.live.projection import SubspaceProjection
from paper_lib.live.watch import Watch

__all__ = ["GeometryCallback", "SubspaceProjection", "Watch"]
