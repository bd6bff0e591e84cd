"""The ledger as files: a page for GitHub, a sheet for programs, a table in a notebook."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from paper_lib.claims import LEDGER_COLUMNS, VERDICTS
from paper_lib.files import write_text

HOW = (
    "Verdicts are computed from the tables. Each claim has a fixed rule: comparisons that may fall either "
    "way (column *agrees when*): **agrees** where every one holds, **partly** where some do, "
    "**disagrees** where none does, and **not tested at this scale** where a run is missing or the "
    "comparison could not have told the claim from its opposite; *why* names those that fail. Runs are "
    "compared at the seeds they share, by the mean over seeds; ± is half of Student's 95 % interval of "
    "that mean, and a value without ± is one seed. Norms, stable ranks, Hill indices and Sim_K are means "
    "over the attention matrices, as in the paper, all else over every projection matrix. *With matched "
    "SFT* reads the same rule with SFT at OPD's start, learning rate, steps and batch in SFT's place: "
    "what is left of the claim without the paper's confounds."
)


def as_markdown(rows: pd.DataFrame, columns: Sequence[str] = LEDGER_COLUMNS) -> str:
    """A GitHub table of some columns of the ledger."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows[list(columns)].itertuples(index=False):
        lines.append(" | ".join(str(cell).replace("|", r"\|") for cell in row))
    return "\n".join(f"| {line} |" for line in lines)


def found(rows: pd.DataFrame, *claims: str) -> str:
    """What a notebook ends with: these claims, the paper's values and ours, and whether they agree."""
    chosen = rows[rows["claim"].isin(claims)].rename(columns={"verdict": "agrees?"})
    return as_markdown(chosen, ("claim", "statement", "paper", "ours", "agrees?", "why"))


def write_ledger(rows: pd.DataFrame, folder: str | Path) -> tuple[Path, Path]:
    """Write claims.md, a table and how its verdicts come about, and claims.csv; returns both paths."""
    page, sheet = Path(folder) / "claims.md", Path(folder) / "claims.csv"
    counts = rows["verdict"].value_counts()
    tally = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    scale = f"Profile {rows['scale'].iloc[0]}." if len(rows) else ""
    title = "# Claims of the paper, and what our runs show"
    write_text(page, "\n\n".join([title, f"{scale} {tally}.", as_markdown(rows), HOW]) + "\n")
    write_text(sheet, rows.to_csv(index=False, lineterminator="\n"))
    return page, sheet
