"""The exercises of the notebooks, and what to say to an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import read_table
from paper_lib.teaching.judging import Exercise, Wrong

from . import computing, own, runs, weights

EXERCISES = {
    known.name: known
    for notebooks in (computing, weights, runs, own)
    for known in vars(notebooks).values()
    if isinstance(known, Exercise)
}
_STATES = {True: ("✓", "right"), False: ("✗", "not yet"), None: ("…", "not answered yet")}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `check` says: whether the answer is right, or None where there is no answer, and a message that
    says why or where to look."""

    exercise: str
    right: bool | None
    message: str

    def __repr__(self) -> str:
        return f"{self.exercise} {_STATES[self.right][1]}: {self.message}"

    def _repr_markdown_(self) -> str:
        mark, state = _STATES[self.right]
        return f"**{self.exercise} {mark} {state}:** {self.message}"


def check(exercise: str, answer: Any, *, tables: Mapping[str, Any] | None = None) -> Verdict:
    """Judge the answer to one exercise, such as "05-2".

    answer: what the exercise asks for; ... or None is "not answered yet". tables: those of the notebook by
    name, as tables or paths, for exercises that are judged by them; the right answer is computed from them
    anew, so that it is right for any profile. Raises CompanionError for an unknown exercise and where a table
    is missing; what is wrong with an answer, an exception in a function included, is in the verdict.
    """
    if exercise not in EXERCISES:
        raise CompanionError(f"no exercise {exercise!r}; there are {', '.join(EXERCISES)}")
    known = EXERCISES[exercise]
    if answer is ... or answer is None:
        return Verdict(exercise=exercise, right=None, message="put your answer in place of `...`")
    frames = {name: _table(exercise, name, tables or {}) for name in known.tables}
    try:
        return Verdict(exercise=exercise, right=True, message=known.judge(answer, **frames))
    except Wrong as wrong:
        return Verdict(exercise=exercise, right=False, message=str(wrong))


def _table(exercise: str, name: str, tables: Mapping[str, Any]) -> pd.DataFrame:
    if name not in tables:
        given = f"pass tables={{{name!r}: {name}, …}}"
        raise CompanionError(f"exercise {exercise} is judged by the table {name!r}: {given}")
    table = tables[name]
    return read_table(table) if isinstance(table, str | Path) else table
