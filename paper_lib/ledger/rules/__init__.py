"""Each claim beside its rule."""
