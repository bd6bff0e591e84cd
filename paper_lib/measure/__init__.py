"""Weights to tables: every metric of every matrix, and the models' own probes."""
