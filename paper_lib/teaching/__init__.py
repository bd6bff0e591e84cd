"""Exercises and what to say to an answer, and views to play with."""
