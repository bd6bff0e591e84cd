"""What the tables of a profile are made of, and which of it they already hold.

A part is a run of one seed, what compares the runs of one seed, a few weights of theirs, or a pair of runs.
Each joined table says in its metadata from which fingerprint the rows of each part were computed: being one
file, they cannot disagree. What is measured needs no run on disk.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from paper_lib.ground.tables import TABLES, table_parts
from paper_lib.study.config import MergeConfig, Profile, fingerprint

JOINT = "joint"  # in the place of a run's name: what compares the runs of a seed
JOURNEY = "journey"  # likewise: single weights followed through the runs of a seed
AND = " & "  # between the names of a pair, in the place of a run's name: opd & rlvr
JOINT_RUNS = ("opd", "rlvr", "sft_matched")  # in one PCA, where they start from the same W_0
RESCALED_FROM = ("sft", "sft_matched")  # the update of each of these ...
RESCALED_TO = ("opd", "rlvr")  # ... at the norm of each of these, as nulls rescaled_sft, rescaled_sft_matched
FOLLOWED_IN = "opd"  # whose update chooses the weights that are followed ...
FOLLOWED = (0.25, 0.5, 0.75)  # ... at these quantiles of |ΔW| over ½ ULP
COMPARED = tuple(dict.fromkeys((*JOINT_RUNS, *RESCALED_FROM)))

Key = tuple[str, int]  # (run, seed), (JOINT, seed), (JOURNEY, seed) or (run & run, seed)


def compared_runs(key: Key) -> tuple[Key, ...]:
    """The (run, seed) that a part may compare; a pair of a run with itself is of this seed and the next."""
    name, seed = key
    if name in (JOINT, JOURNEY):
        return tuple((run, seed) for run in COMPARED)
    one, _, other = name.partition(AND)
    return ((one, seed), (other, seed + (one == other))) if other else ()


@dataclass(frozen=True, kw_only=True)
class PlannedPart:
    """What a part has to be computed from, and the tables that it has rows in.

    compared: the runs behind a comparison.
    """

    fingerprint: str
    tables: tuple[str, ...]
    compared: tuple[Key, ...] = ()


def planned_parts(profile: Profile, trajectories: Mapping[Key, str]) -> dict[Key, PlannedPart]:
    """The parts that these trajectories (their fingerprints, in planned order) make, in the tables' order:
    each run, then each seed of which at least two runs are compared, then the runs of which the curve is all,
    then each pair, then the weights that are followed, in the first seed of the run that chooses them."""
    config, parts = profile.diagnostics, dict[Key, PlannedPart]()

    def plan(key: Key, tables: tuple[str, ...], *made_from: Any, compared: tuple[Key, ...] = ()) -> None:
        of = fingerprint(profile.name, *made_from)
        parts[key] = PlannedPart(fingerprint=of, tables=tables, compared=compared)

    first_seed = {run.name: seed for run, seed in reversed(profile.planned())}
    for (name, seed), trained in trajectories.items():
        if name in profile.curve_runs:
            continue
        nulls = ("nulls",) if name in config.null_runs else ()
        masks = ("masks",) if nulls and seed == first_seed[name] else ()
        tables = ("matrices", "trajectories", *nulls, *masks)
        stepped = ("stepped",) if name in profile.stepped_runs else ()
        made_from = (profile.run(name), seed, config, trained, tables, *stepped)
        plan((name, seed), (*tables, "curves"), *made_from)
    for seed in sorted({seed for _, seed in trajectories}):
        behind = {name: trajectories[name, seed] for name in COMPARED if (name, seed) in trajectories}
        if len(behind) > 1:
            probes = config.model_probes
            curved = probes is not None and behind.keys() & set(probes.curvature_runs)
            tables = ("trajectories", "nulls", *(("curvature",) if curved else ()))
            compared = tuple((name, seed) for name in behind)
            plan((JOINT, seed), tables, JOINT, seed, config, behind, compared=compared)
    for key, trained in trajectories.items():
        if key[0] in profile.curve_runs:
            plan(key, ("curves",), trained)
    merges = profile.merges or MergeConfig(pairs=())
    pairs = (*config.pairs, *profile.probe_pairs, *merges.pairs, *((run, run) for run in config.seed_runs))
    for one, other in dict.fromkeys(pairs):
        for key in [(one + AND + other, seed) for name, seed in trajectories if name == one]:
            if not trajectories.keys() >= set(compared := compared_runs(key)):
                continue
            merged = (one, other) in merges.pairs
            settings = (merges.scale, merges.keep, profile.evaluation) if merged else ()
            behind_both = [trajectories[run] for run in compared]
            plan(key, ("pairs",), key, config, behind_both, *settings, compared=compared)
    if (chosen := (FOLLOWED_IN, first_seed.get(FOLLOWED_IN, -1))) in trajectories:
        key = (JOURNEY, chosen[1])
        runs = tuple(run for run in compared_runs(key) if run in trajectories)
        behind = {name: trajectories[name, seed] for name, seed in runs}
        plan(key, ("journeys",), JOURNEY, chosen, FOLLOWED, behind, compared=runs)
    return parts


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the joined tables on disk hold: the parts with rows in them, in order.

    models: fingerprints of the base and the teachers behind all of it, by name.
    """

    parts: dict[Key, PlannedPart]
    models: dict[str, str]

    def holds(self, key: Key, part: PlannedPart) -> bool:
        """Whether every table of the part has its rows, computed from this very fingerprint."""
        held = self.parts.get(key, PlannedPart(fingerprint="", tables=()))
        return held.fingerprint == part.fingerprint and {*held.tables} == {*part.tables}

    def describes(self, parts: Mapping[Key, PlannedPart], models: Mapping[str, str]) -> bool:
        """Whether the tables hold exactly these parts, so that writing them anew would change nothing."""
        same_order = list(self.parts) == list(parts)
        return same_order and all(map(self.holds, parts, parts.values())) and self.models == models


def read_manifest(results: Path) -> Manifest:
    """The manifest of the tables in `results`, empty for a table that is missing or does not have one.

    A part whose tables disagree, as after a write that was cut, has the fingerprint "". Raises CompanionError
    for a table that is there and cannot be read: its rows may be all that is left.
    """
    held: dict[Key, dict[str, str]] = {}
    models: dict[str, str] = {}
    for table in dict.fromkeys(("trajectories", *TABLES)):  # has rows of every run and comparison, in order
        path = results / f"{table}.parquet"
        if path.is_file() and (said := table_parts(path)) is not None:
            models = said["models"]
            for run, seed, made_from in said["fingerprints"]:
                held.setdefault((run, seed), {})[table] = made_from
    parts = {}
    for key, by_table in held.items():
        made_from, *others = set(by_table.values())
        parts[key] = PlannedPart(fingerprint="" if others else made_from, tables=tuple(by_table))
    return Manifest(parts=parts, models=models)


def part_directory(results: Path, key: Key) -> Path:
    """Where a part's own tables are, joined or not."""
    name, seed = key
    return results / "parts" / name.replace(AND, "+") / f"seed_{seed}"


def measured_runs(profile: Profile, results: Path, trajectories: Mapping[Key, str]) -> set[Key]:
    """The planned (run, seed) that need no trajectory any more, `trajectories` giving all fingerprints. A run
    that is compared with others counts only where that comparison, which takes its weights, is measured."""
    manifest, parts = read_manifest(results), planned_parts(profile, trajectories)
    up_to_date = {key for key, part in parts.items() if manifest.holds(key, part)}
    awaited = {run for key in parts.keys() - up_to_date for run in parts[key].compared}
    return {key for key in up_to_date - awaited if not parts[key].compared}


def owners(table: str, rows: pd.DataFrame) -> pd.MultiIndex:
    """The part that every row of a joined table belongs to, as (run or what stands in its place, seed)."""
    if table == "pairs":
        names = rows["run"].astype(object) + AND + rows["other"].astype(object)
        return pd.MultiIndex.from_arrays([names, rows["seed"]])
    if table == "journeys":
        return pd.MultiIndex.from_arrays([[JOURNEY] * len(rows), rows["seed"]])
    compared = pd.Series(table == "curvature", index=rows.index)
    if table == "nulls":
        compared = rows["null"].astype(str).str.startswith("rescaled_")
    if table == "trajectories":
        joint_axes = rows["run"].astype(str).str.startswith("joint:")
        compared = rows["metric"].eq("joint_pca_coordinate") | joint_axes
    return pd.MultiIndex.from_arrays([rows["run"].astype(object).mask(compared, JOINT), rows["seed"]])


def rows_of(table: str, rows: pd.DataFrame, keys: Set[Key]) -> pd.DataFrame:
    """The rows that belong to one of these parts."""
    return rows[owners(table, rows).isin(list(keys))] if keys and len(rows) else rows.iloc[:0]


def spoken(keys: list[Key]) -> str:
    """Parts by name: opd (seed 0 1), the comparison of seed 0."""
    runs: dict[str, list[int]] = {}
    for name, seed in keys:
        runs.setdefault(name, []).append(seed)
    compared = runs.pop(JOINT, [])
    followed = [f"the weights followed in seed {seed}" for seed in runs.pop(JOURNEY, [])]
    names = [f"{name} (seed {' '.join(map(str, seeds))})" for name, seeds in runs.items()]
    return ", ".join([*names, *(f"the comparison of seed {seed}" for seed in compared), *followed])
