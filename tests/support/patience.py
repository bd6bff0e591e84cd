"""How long a test waits for what ought to happen, on a machine that others load."""

PATIENCE = 300  # seconds; a test that passes never waits them out
