"""Companion to "On the Geometry of On-Policy Distillation": train, measure and redraw the study."""

__version__ = "0.1.0"
