"""Tables to verdicts: claims, the rules that judge them, and their page."""
