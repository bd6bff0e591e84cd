"""The equations: pure functions on tensors, with what chance would give, and their certified numerics."""
