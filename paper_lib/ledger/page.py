"""The ledger as files: a page for GitHub, a sheet for programs, a table in a notebook."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from paper_lib.files import write_text
from paper_lib.ledger import verdicts
from paper_lib.ledger.multiplicity import corrections
from paper_lib.ledger.verdicts import LEDGER_COLUMNS, ORDER_ONLY, OTHERS, PAPER, REPRODUCED, VERDICTS, Reading

HOW = (
    "Norms, stable ranks, Hill indices and Sim_K are means over the attention matrices, as in the paper, all "
    "else over every projection matrix. In *ours*, ± is half of Student's 95 % interval of a run's own mean; "
    "comparisons are paired and can be sharper. *SFT at its own schedule* starts from the base and has more "
    "steps at a higher rate than OPD and RLVR, which share batch, steps and rate; in the paper they do not. "
    "*Matched* has SFT at OPD's start, learning rate, steps and batch in SFT's place, or what the claim's "
    "section says. *Equal norm* and *equal accuracy* compare matched SFT, OPD and RLVR where each has come "
    "equally far."
)
SUMMARY = ("claim", "statement", "paper", "ours", "verdict", "verdict, matched", "beyond the null")
_BY_NULL = {"no": "no more than the null gives", "yes": "more than it", "–": "without a null"}
_DETAILS = {
    "comparisons": "Comparisons",
    "effect size": "Effect size (d_z)",
    "null": "Null",
    "why": "Why",
    "matched by": "Matched by",
    "ours, matched": "Ours, matched",
    "comparisons, matched": "Comparisons, matched",
    "effect size, matched": "Effect size, matched",
    "null, matched": "Null, matched",
    "why, matched": "Why, matched",
}


def the_rule() -> str:
    """The rule of the verdicts in words, as `verdicts` states it."""
    return " ".join(str(verdicts.__doc__).split())


def as_markdown(rows: pd.DataFrame, columns: Sequence[str] = LEDGER_COLUMNS) -> str:
    """A GitHub table of some columns of the ledger."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows[list(columns)].itertuples(index=False):
        lines.append(" | ".join(str(cell).replace("|", r"\|") for cell in row))
    return "\n".join(f"| {line} |" for line in lines)


def claims_in_short(rows: pd.DataFrame, columns: Sequence[str] = (*SUMMARY, "why")) -> Markdown:
    """What a notebook ends with: its claims, the paper's values and ours, both verdicts, and why."""
    return Markdown(as_markdown(rows, columns))


def write_ledger(
    rows: pd.DataFrame, folder: str | Path, readings: Sequence[Reading] = ()
) -> tuple[Path, Path]:
    """Write claims.md and claims.csv; returns both paths.

    The page has a table of all claims, a section each with comparisons and readings, and the rule; with
    `readings`, of the same rows, also what a correction for the number of comparisons would change. The sheet
    has every column, one row a claim.
    """
    page, sheet = Path(folder) / "claims.md", Path(folder) / "claims.csv"
    scale = f"Profile {rows['scale'].iloc[0]}." if len(rows) else ""
    tallies = [f"{PAPER}: {_tally(rows['verdict'], rows['beyond the null'])}."]
    matched = _tally(rows["verdict, matched"], rows["beyond the null, matched"])
    tallies.append(f"With matched settings: {matched}.")
    table = corrections(readings) if readings else pd.DataFrame()
    parts = [
        "# Claims of the papers, and what our runs show",
        textwrap.fill(" ".join([scale, *tallies]), 110),
        as_markdown(rows, SUMMARY),
        "## Claim by claim",
        *(_section(row) for _, row in rows.iterrows()),
        "## How a verdict comes about",
        textwrap.fill(the_rule(), 110),
        textwrap.fill(HOW, 110),
        *(("### Many comparisons at once", as_markdown(table, [*map(str, table)])) if readings else ()),
    ]
    write_text(page, "\n\n".join(parts) + "\n")
    write_text(sheet, rows.to_csv(index=False, lineterminator="\n"))
    return page, sheet


def _tally(verdicts: pd.Series, beyond: pd.Series) -> str:
    """How many of each verdict, those that hold split by what the null gives."""
    counts, words = verdicts.value_counts(), []
    for verdict in (verdict for verdict in VERDICTS if verdict in counts):
        nulls = beyond[verdicts == verdict].value_counts()
        split = ", ".join(f"{nulls[answer]} {said}" for answer, said in _BY_NULL.items() if answer in nulls)
        words.append(f"{counts[verdict]} {verdict}" + f" ({split})" * (verdict in (REPRODUCED, ORDER_ONLY)))
    return ", ".join(words)


def _section(row: pd.Series) -> str:
    head = f"### {row['claim']}. {row['statement']}"
    paper = f"{row['where']}: {row['paper']}. Ours: {row['ours']}. Holds when {row['holds when']}."
    verdict = f"**{row['verdict']}**, matched **{row['verdict, matched']}**"
    verdict += f"; beyond the null: {row['beyond the null']}, matched: {row['beyond the null, matched']}."
    details = [f"- {title}: {row[name]}" for name, title in _DETAILS.items() if row[name] != "–"]
    others = [f"- Also, {name}: {row[name]}" for name in OTHERS if row[name] != "–"]
    return "\n\n".join([head, paper, verdict, "\n".join([*details, *others])])
