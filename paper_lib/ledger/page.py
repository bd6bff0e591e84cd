"""The ledger as files: a page for GitHub, a sheet for programs, a table in a notebook."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from paper_lib.ground.files import write_text
from paper_lib.ledger import verdicts
from paper_lib.ledger.claim import ENDS
from paper_lib.ledger.contrasts import FEWEST_SEEDS, Contrast
from paper_lib.ledger.verdicts import LEDGER_COLUMNS, ORDER_ONLY, PAPER, REPRODUCED, VERDICTS, Reading, judge

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
SHORT = ("claim", "paper", "ours", "verdict", "verdict, matched", "why")
_BY_NULL = {"no": "no more than the null gives", "yes": "more than it", "–": "without a null"}
_DETAILS = (  # of a claim, each a line where it is not "–"
    *("comparisons", "effect size", "null", "why", "matched by", "ours, matched", "comparisons, matched"),
    *("effect size, matched", "null, matched", "why, matched"),
)


def the_rule() -> str:
    """The rule of the verdicts in words, as `verdicts` states it."""
    return " ".join(str(verdicts.__doc__).split())


def as_markdown(rows: pd.DataFrame, columns: Sequence[str] = LEDGER_COLUMNS) -> str:
    """A GitHub table of some columns of the ledger."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows[list(columns)].itertuples(index=False):
        lines.append(" | ".join(str(cell).replace("|", r"\|") for cell in row))
    return "\n".join(f"| {line} |" for line in lines)


def claims_in_short(rows: pd.DataFrame, columns: Sequence[str] = SHORT) -> Markdown:
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
    own = f"{PAPER}: {_tally(rows['verdict'], rows['beyond the null'])}."
    matched = _tally(rows["verdict, matched"], rows["beyond the null, matched"])
    table = corrections(readings) if readings else pd.DataFrame()
    parts = [
        "# Claims of the papers, and what our runs show",
        textwrap.fill(f"{scale} {own} With matched settings: {matched}.", 110),
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
    titles = {name: name.capitalize() for name in _DETAILS} | {"effect size": "Effect size (d_z)"}
    details = [f"- {title}: {row[name]}" for name, title in titles.items() if row[name] != "–"]
    others = [f"- Also, {name}: {row[name]}" for name in ENDS if row[name] != "–"]
    return "\n\n".join([head, paper, verdict, "\n".join([*details, *others])])


# --- What a correction for the number of comparisons would take away from the ledger.

LEVEL = 0.05


def p_value(contrast: Contrast) -> float:
    """Two-sided, of Student's t of the mean against the edge that decides: below 0.05 where it is decided."""
    from scipy import stats  # most of a second, and only the page needs it

    return float(2 * stats.t.sf(abs(contrast.effect) * contrast.seeds**0.5, contrast.seeds - 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values, (N,): the running maximum of (N − i) p_(i) from i = 0, at most 1 (Holm 1979)."""
    order, adjusted = np.argsort(p), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted


def corrections(readings: Sequence[Reading]) -> pd.DataFrame:
    """One row a correction, all text: comparisons tested, decided, lost under it, and verdicts that it moves.

    A comparison counts once that two readings share; idle ones and those of too few seeds are left out.
    """
    from scipy import stats

    tested = {
        (contrast.text, contrast.mean): contrast
        for reading in readings
        for contrast in reading.finding.contrasts
        if contrast.seeds >= FEWEST_SEEDS and not contrast.idle
    }
    p = np.array([p_value(contrast) for contrast in tested.values()])
    rows = []
    for name, adjust in {"Holm": holm, "Benjamini–Hochberg": stats.false_discovery_control}.items():
        lost = {key for key, raw, fair in zip(tested, p, adjust(p), strict=True) if raw < LEVEL <= fair}
        moved = [words for reading in readings if (words := _moved(reading, lost))]
        counts = (str(len(p)), str((p < LEVEL).sum()), str(len(lost)))
        which = "; ".join(text for text, _ in sorted(lost))
        rows.append((name, *counts, which or "–", "; ".join(moved) or "–"))
    heads = ["correction", "tested", "decided", "lost", "which", "verdicts that move"]
    return pd.DataFrame(rows, columns=heads)


def _moved(reading: Reading, lost: set[tuple[str, float]]) -> str:
    """How a verdict moves where these comparisons decide nothing; empty where it stays."""
    contrasts = [
        replace(each, idle="lost") if (each.text, each.mean) in lost else each
        for each in reading.finding.contrasts
    ]
    verdict = judge(replace(reading.finding, contrasts=contrasts))
    return "" if verdict == reading.verdict else f"{reading.claim.id}, {reading.name}: {verdict}"
