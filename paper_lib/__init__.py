"""Companion to "On the Geometry of On-Policy Distillation": train, measure and redraw the study."""

import warnings

__version__ = "0.1.0"
warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, in a notebook: its plain bars will do
