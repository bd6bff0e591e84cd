"""Tables to pictures: one look, what draws each panel, and how a figure is saved."""
