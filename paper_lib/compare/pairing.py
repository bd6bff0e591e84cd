"""What is compared: two checkpoints, the snapshots between them, and which of their matrices."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from paper_lib.compare.adapters import no_base
from paper_lib.compare.shards import DEQUANTISE, QUANTISED, Source
from paper_lib.compare.sources import labels, open_source, trajectory_sources
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import parsed_json
from paper_lib.ground.matrices import OUTSIDE, Matrix
from paper_lib.study.config import DiagnosticsConfig, fingerprint
from paper_lib.summaries import MODULE_GROUPS

# --- Which sizes the diagnostics take on matrices of any model: the paper's where they fit, else scaled.

LARGE = 2048  # from this width on the paper's sizes are taken as they are
PAPER = {"principal_rank": 64, "angle_k": 512, "K": 16, "hill_k": 32, "energy_k": 16}
PER_WIDTH = {"principal_rank": 32, "angle_k": 8, "K": 40, "hill_k": 8, "energy_k": 32}
LEAST = {"principal_rank": 1, "angle_k": 1, "K": 1, "hill_k": 2, "energy_k": 1}


def model_width(shapes: Sequence[tuple[int, int]]) -> int:
    """The side that most matrices have, the smaller one in a tie: a transformer's hidden size."""
    sides = Counter(side for shape in shapes for side in set(shape))
    return max(sides, key=lambda side: (sides[side], -side))


def sizes_for(
    shapes: Sequence[tuple[int, int]], chosen: Mapping[str, Any] | None = None
) -> DiagnosticsConfig:
    """The sizes for matrices of these shapes, one set for all, so that means are means of one quantity.

    From width 2048 on they are the paper's (`PAPER`; the k of Hill, which it leaves open, is 32; that of the
    angles is at most half of a matrix's short side, see `measure_matrix`). Below, they are the width divided
    by `PER_WIDTH`, rounded, and at most the paper's; none exceeds the shortest side. chosen: fields of
    `DiagnosticsConfig` that replace these. Raises CompanionError for a chosen size that does not fit.
    """
    shortest = min(min(shape) for shape in shapes)
    scaled = _scaled(model_width(shapes))
    sizes: dict[str, Any] = {name: max(LEAST[name], min(most, shortest)) for name, most in scaled.items()}
    sizes["angle_k"] = scaled["angle_k"]
    for name, value in (chosen or {}).items():
        fits = name == "angle_k" or value <= shortest  # of the angles, `measure_matrix` takes what there is
        if name in PAPER and not (fits and value >= LEAST[name]):
            raise CompanionError(
                f"{name} = {value} does not fit: the smallest matrix has a side of {shortest}, so it must "
                f"lie in [{LEAST[name]}, {shortest}] (--modules leaves small matrices out)"
            )
        sizes[name] = value
    if sizes["hill_k"] > shortest:
        raise CompanionError(f"a matrix has a side of {shortest}, too small: leave it out with --modules")
    return DiagnosticsConfig(**sizes)


def _scaled(width: int) -> dict[str, int]:
    return {
        name: max(LEAST[name], most if width >= LARGE else min(most, round(width / PER_WIDTH[name])))
        for name, most in PAPER.items()
    }


# --- Which matrices two checkpoints have in common.

LeftOut = dict[str, dict[str, str]]  # by kind, the names of tensors that are not measured, and why


def pair_up(base: Source, finetuned: Source) -> tuple[list[Matrix], LeftOut]:
    """The base's matrices that the other has too, by canonical name and shape, and what is left out.

    What one of them leaves out, with its reason, counts as skipped, not as missing. Raises CompanionError
    where they share none.
    """
    ours, theirs = ({m.name: m for m in source.matrices()} for source in (base, finetuned))
    # An output head that is tied in one of the two is compared with the other's own.
    ours |= {name: entry.matrix for name, entry in base.tied.items() if name in theirs}
    theirs |= {name: entry.matrix for name, entry in finetuned.tied.items() if name in ours}
    skipped = finetuned.left_out | base.left_out
    shared = [matrix for matrix in ours.values() if matrix.name in theirs]
    mismatched = {
        matrix.name: f"{_size(matrix)} in the base, {_size(theirs[matrix.name])} in {finetuned.label}"
        for matrix in shared
        if matrix.shape != theirs[matrix.name].shape
    }
    matched = [matrix for matrix in shared if matrix.name not in mismatched]
    if not matched:
        unlike = [f"{name} is {sizes}" for name, sizes in mismatched.items()]
        example = (unlike or [f"{next(iter(ours))} against {next(iter(theirs))}"])[0]
        raise CompanionError(
            f"{base.label} and {finetuned.label} have no matrix of the same name and shape ({example}): "
            "name two checkpoints of one model"
        )
    return matched, {
        "only in the base": {name: "" for name in ours if name not in theirs | skipped},
        "only in the fine-tuned": {name: "" for name in theirs if name not in ours | skipped},
        "mismatched": mismatched,
        "skipped": skipped,
    }


def _size(matrix: Matrix) -> str:
    return " × ".join(str(side) for side in matrix.shape)


# --- The checkpoints to compare: their snapshots in order, and the matrices that all of these have.

Rates = Sequence[float] | float | None  # of every optimizer step, or of all alike


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """snapshots: (step, source) of W_0, …, W_T, the first of which is in `base` and the last in `finetuned`.
    other: a second fine-tune of W_0. matrices: those measured; their module is unique in a layer, "gate.3"
    where a layer has several. left_out: by kind and name, why a tensor is not measured."""

    snapshots: tuple[tuple[int, Source], ...]
    other: Source | None
    matrices: tuple[Matrix, ...]
    left_out: Mapping[str, Mapping[str, str]]
    config: DiagnosticsConfig
    learning_rates: tuple[float, ...] | None
    nulls: bool
    exact: bool
    threads: int

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(step for step, _ in self.snapshots)

    @property
    def base(self) -> Source:
        return self.snapshots[0][1]

    @property
    def finetuned(self) -> Source:
        return self.snapshots[-1][1]

    def fingerprint(self, matrix: Matrix) -> str:
        """Of everything that one matrix's numbers depend on."""
        return fingerprint("compare, with ranks", self._settings, matrix)

    @cached_property
    def _settings(self) -> str:
        sources = [(step, source.fingerprint) for step, source in self.snapshots]
        sources += [(-1, self.other.fingerprint)] if self.other else []
        settings = (self.config, self.learning_rates, self.nulls, self.exact, self.threads)
        return fingerprint(sources, *settings)


def open_checkpoints(
    base: str | Path,
    finetuned: str | Path | None = None,
    *,
    other: str | Path | None = None,
    trajectory: Sequence[str | Path] = (),
    last_step: int | None = None,
    learning_rates: Rates | str = None,
    modules: str = "all",
    sizes: Mapping[str, Any] | None = None,
    nulls: bool = False,
    exact: bool = False,
    threads: int = 1,
    hub: bool = False,
) -> Checkpoints:
    """Open the checkpoints, put the snapshots in order and pair up the matrices; only headers are read.

    finetuned: None where `base` is an adapter, which is then measured without its base. other: a second
    fine-tune of the base. trajectory: folders with the snapshots between. last_step: the optimizer step of
    `finetuned`; None asks the learning rates, then the trajectory if it ends in `finetuned`, and is 1 where
    there is neither. learning_rates: one per step, the name of a JSON file of these, or one for all. modules:
    a name of `MODULE_GROUPS` or names of modules.
    Raises CompanionError for checkpoints that cannot be read, that share no matrix, or steps out of order.
    """
    learning_rates = _stated_rates(learning_rates)
    if finetuned is None and (nulls or trajectory or other):
        raise CompanionError("an adapter without its base has no nulls, no path and no other update: name it")
    names = labels(*(path for path in (base, finetuned, other) if path is not None))
    start = no_base(Path(base)) if finetuned is None else open_source(base, hub=hub, label=names[0])
    end = open_source(finetuned or base, hub=hub, base=start, label=names[finetuned is not None])
    beside = open_source(other, hub=hub, base=start, label=names[2]) if other else None
    read = [trajectory_sources(where, base=start) for where in trajectory]
    between = sorted((pair for pairs, _ in read for pair in pairs), key=lambda pair: pair[0])
    last = _last_step(between, end, last_step, learning_rates)
    inner = [(step, source) for step, source in between if 0 < step < last]
    if late := [step for step, _ in between if step > last]:
        raise CompanionError(f"the trajectory goes on to step {late[-1]}, past {last}: give --steps")
    if twice := {a[0] for a, b in pairwise(inner) if a[0] == b[0]}:
        raise CompanionError(f"two snapshots of the trajectory are of step {min(twice)}")
    snapshots = ((0, start), *inner, (last, end))
    matched, left_out = _pair(snapshots, beside)
    left_out["unfinished"] = {name: why for _, unfinished in read for name, why in unfinished.items()}
    matrices, small = _asked_for(matched, modules, sizes or {})
    if not matrices:
        raise CompanionError(_nothing_asked_for(matched, modules, start, end))
    left_out["too small"] = small
    measured = {matrix.name for matrix in matrices} | set(small)
    left_out["not asked for"] = {m.name: m.module for m in matched if m.name not in measured}
    return Checkpoints(
        snapshots=snapshots,
        other=beside,
        matrices=_distinct(matrices),
        left_out=left_out,
        config=sizes_for([matrix.shape for matrix in matrices], sizes),
        learning_rates=_rates(learning_rates, [step for step, _ in snapshots]),
        nulls=nulls,
        exact=exact,
        threads=threads,
    )


def _asked_for(
    matched: Sequence[Matrix], names: str, chosen: Mapping[str, Any]
) -> tuple[list[Matrix], dict[str, str]]:
    """The matrices of the modules asked for, and those too small for the sizes of the rest. "all" leaves out
    embeddings and output heads, whose rows are tokens that may never have occurred."""
    groups = MODULE_GROUPS.get(names) or tuple(names.replace(",", " ").split())
    asked = [m for m in matched if (m.module not in OUTSIDE if names == "all" else m.module in groups)]
    scaled = _scaled(model_width([m.shape for m in asked])) if asked else {}
    sizes = (min(size, chosen.get(name, size)) for name, size in scaled.items() if name != "angle_k")
    least = max(sizes, default=0)
    small = {m.name: f"{_size(m)}: a side below {least}" for m in asked if min(m.shape) < least}
    kept = [matrix for matrix in asked if matrix.name not in small]
    return (kept, small) if kept else (asked, {})


def _nothing_asked_for(matched: Sequence[Matrix], names: str, *sources: Source) -> str:
    pair = " and ".join(source.label for source in reversed(sources))
    for source in sources:
        for name, reason in source.left_out.items():
            if QUANTISED in reason:
                return f"{pair} share no {names}: {name} of {source.label} is {reason}; {DEQUANTISE}"
    known = ", ".join((*MODULE_GROUPS, *sorted({matrix.module for matrix in matched})))
    return f"{pair} share no module {names!r}; there are {known}"


def _last_step(
    between: Sequence[tuple[int, Source]], end: Source, asked: int | None, learning_rates: Rates
) -> int:
    if asked is not None:
        return asked
    if isinstance(learning_rates, Sequence):
        return len(learning_rates)
    if between and between[-1][1].fingerprint == end.fingerprint:
        return between[-1][0]
    if between or learning_rates is not None:
        raise CompanionError(f"nothing says after how many steps {end.label} was saved: give --steps")
    return 1


def _stated_rates(given: Rates | str) -> Rates:
    """Learning rates, read where the name of a JSON file is given, from which a drift ratio can be had."""
    where = "the list of learning rates"
    stated: Any = given
    if isinstance(given, str):
        where, stated = given, parsed_json(given, "give a list of numbers, one per optimizer step")
        if not isinstance(stated, list) or not all(type(rate) in (int, float) for rate in stated):
            raise CompanionError(f"{where} holds no list of numbers, one per optimizer step")
    rates = stated if isinstance(stated, Sequence) else [stated or 0.0]
    if bad := [rate for rate in rates if not 0 <= rate <= sys.float_info.max]:
        raise CompanionError(f"{where} holds {bad[0]}: a learning rate is finite and at least 0")
    if given is not None and not any(rates):
        held = "zeros alone" if rates else "nothing"
        raise CompanionError(f"{where} holds {held}: give the learning rate of every optimizer step")
    return stated


def _rates(stated: Rates, steps: Sequence[int]) -> tuple[float, ...] | None:
    if stated is None:
        return None
    rates = tuple(map(float, stated if isinstance(stated, Sequence) else [stated] * steps[-1]))
    if len(rates) != steps[-1]:
        raise CompanionError(f"there are {len(rates)} learning rates for {steps[-1]} optimizer steps")
    if not any(rates[: steps[1]]):
        raise CompanionError(f"every learning rate up to step {steps[1]}, the first snapshot, is 0")
    return rates


def _pair(snapshots: Sequence[tuple[int, Source]], other: Source | None) -> tuple[list[Matrix], LeftOut]:
    """The matrices that every snapshot and `other` share with W_0, and why each other tensor is left out."""
    base, (_, end) = snapshots[0][1], snapshots[-1]
    matched, left_out = pair_up(base, end)
    sources = [(f"the snapshot of step {step}", source) for step, source in snapshots[1:-1]]
    for where, source in [*sources, *([(other.label, other)] if other else [])]:
        shared = {matrix.name for matrix in pair_up(base, source)[0]}
        for matrix in matched:
            if matrix.name not in shared:
                left_out["mismatched"][matrix.name] = f"no partner in {where}"
        matched = [matrix for matrix in matched if matrix.name in shared]
    return matched, left_out


def _distinct(matrices: Sequence[Matrix]) -> tuple[Matrix, ...]:
    """The same matrices, with numbers after the module where a layer has several of it (experts)."""
    groups: dict[tuple[int, str], list[Matrix]] = {}
    for matrix in matrices:
        groups.setdefault((matrix.layer, matrix.module), []).append(matrix)
    return tuple(
        matrix if len(group) == 1 else replace(matrix, module=f"{matrix.module}.{number}")
        for group in groups.values()
        for number, matrix in enumerate(group)
    )
