"""The page for teachers names every exercise, and its answers are those of the committed tables."""

import re
from itertools import pairwise

import pytest
from exercise_cells import ROOT, solved

from paper_lib.teaching.exercises import EXERCISES

PAGE = " ".join((ROOT / "book" / "pages" / "teaching.md").read_text(encoding="utf-8").split())
NUMBERS = {  # what the page prints of an answer, and of what stands beside it, and the same from the solution
    "01-1": ("71.7", lambda names: f"{names['answer']:.1f}"),
    "03-1": ("0.296 to 0.348", lambda names: "{:.3f} to {:.3f}".format(*names["answer"])),
    "03-3": (
        "0.07 points, of the 23.04 between OPD and SFT as they are (with matched SFT's update 7.0 are left)",
        lambda names: (
            "{:.2f} points, of the {:.2f} between OPD and SFT as they are "
            "(with matched SFT's update {:.1f} are left)"
        ).format(names["answer"], *points_sparser(names)),
    ),
    "04-1": ("6.", lambda names: f"{names['answer']}."),
    "04-3": (
        "1.02, where the angles as they are have a ratio of 3.83",
        lambda names: (
            f"{names['answer']:.2f}, where the angles as they are have a ratio of "
            f"{names['as_is']['sft'] / names['as_is']['opd']:.2f}"
        ),
    ),
    "05-2": (
        "`sft_matched`, by 0.770; OPD gains 0.545, RLVR 0.538, SFT 0.424",
        lambda names: "`{}`, by {:.3f}; OPD gains {:.3f}, RLVR {:.3f}, SFT {:.3f}".format(
            names["answer"], *(names["excess"][run] for run in ("sft_matched", "opd", "rlvr", "sft"))
        ),
    ),
    "06-2": ("0.238", lambda names: f"{names['answer']:.3f}"),
    "06-3": (
        "3 for OPD against RLVR, *from the tables*, and 5 against another seed's",
        lambda names: "{} for OPD against RLVR, *from the tables*, and {} against another seed's".format(
            *(names["answer"](names[kind]) for kind in ("paired", "mismatched"))
        ),
    ),
    "07-1": (
        "8.49 for OPD, 1.71 for RLVR",
        lambda names: "{:.2f} for OPD, {:.2f} for RLVR".format(*names["answer"]),
    ),
    "07-2": ("0.0017", lambda names: f"{names['answer']:.4f}"),
    "08-1": ("2.68", lambda names: f"{names['answer']:.2f}"),
}


def points_sparser(names):
    """Of exercise 03-3: OPD than SFT as they are, and than matched SFT's update at OPD's norm."""
    others = names["ours"]["sft"], names["shrunk"]["rescaled_sft_matched"]
    return [100 * (names["ours"]["opd"] - other) for other in others]


def paragraph(name):
    found = re.search(rf"\*\*{name} — .*?(?=\*\*\d\d-\d — |## )", PAGE)
    assert found, f"no paragraph on {name}"
    return found[0]


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_its_title_minutes_aim_answer_and_mistakes(name):
    known, text = EXERCISES[name], paragraph(name)
    assert text.startswith(f"**{name} — {known.title}** ({known.minutes} minutes) *Aim:* ")
    assert "*Expected" in text
    assert "*Typical mistakes:*" in text
    assert bool(known.tables) <= ("from the tables" in text)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_printed_answer_is_what_the_solution_gives(name):
    printed, computed = NUMBERS[name]
    assert computed(solved(name)) == printed, f"book/pages/teaching.md says {printed} for {name}"
    assert printed in paragraph(name)


def test_every_exercise_is_in_a_session_and_minutes_fit():
    rows = re.findall(r"\| \d\. [^|]+\|[^|]+\|[^|]+\|([^|]+)\|([^|]+)\|", PAGE)
    assert len(rows) == 4
    placed = [name for row in rows for column in row for name in re.findall(r"\d\d-\d", column)]
    assert sorted(placed) == list(EXERCISES)
    for in_class, homework in rows:
        assert sum(EXERCISES[name].minutes for name in re.findall(r"\d\d-\d", in_class)) <= 50
        assert sum(EXERCISES[name].minutes for name in re.findall(r"\d\d-\d", homework)) <= 60


def test_the_lecture_takes_ninety_minutes_without_a_gap():
    rows = [(int(a), int(b)) for a, b in re.findall(r"\| (\d+)–(\d+) \|", PAGE)]
    assert rows[0][0] == 0
    assert rows[-1][1] == 90
    assert all(end == start for (_, end), (start, _) in pairwise(rows))
