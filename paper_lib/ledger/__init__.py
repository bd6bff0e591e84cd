"""Tables to verdicts: claims, the rules that judge them, and their page."""

# fmt: off
# ruff: noqa: F401
from paper_lib.ledger.claim import label
from paper_lib.ledger.page import claims_in_short, write_ledger
from paper_lib.ledger.pictures import claims_figure, draw_kinds, draw_overview, draw_size
from paper_lib.ledger.rules.projection import kept_in_words, retained_shares
from paper_lib.ledger.size import end_values, in_words, slopes
from paper_lib.ledger.verdicts import VERDICTS, ledger, read_all
