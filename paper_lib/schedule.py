"""In which order the runs of a profile are trained: what each starts from, what is asked for, what waits."""

from collections.abc import Sequence

from paper_lib.config import Profile, RunConfig
from paper_lib.errors import CompanionError
from paper_lib.starts import Study

Planned = tuple[RunConfig, int]  # a run and its seed


def selected(profile: Profile, runs: list[str] | None, seeds: list[int] | None) -> list[Planned]:
    """The planned runs of these names and seeds, all where None; CompanionError for an unknown one."""
    planned = profile.planned()
    known = sorted({run.name for run, _ in planned})
    for name in runs or []:
        if name not in known:
            raise CompanionError(f"no run {name!r} in profile {profile.name}; it has {', '.join(known)}")
    named = [(run, seed) for run, seed in planned if runs is None or run.name in runs]
    has = sorted({seed for _, seed in named})
    for seed in seeds or []:
        if seed not in has:
            of = "no run" if runs is None else f"none of {', '.join(runs)}"
            known_seeds = ", ".join(map(str, has))
            raise CompanionError(f"profile {profile.name} plans {of} with seed {seed}; it has {known_seeds}")
    chosen = [(run, seed) for run, seed in named if seeds is None or seed in seeds]
    if not chosen:
        raise CompanionError("no run and seed is named: name some, or leave the choice out for all")
    return chosen


def with_parents(study: Study, chosen: Sequence[Planned]) -> list[Planned]:
    """These runs and all that they start from."""
    needed = list(chosen)
    for run, seed in needed:
        needed += [(parent, seed) for parent in study.parents(run) if (parent, seed) not in needed]
    return needed


def waves(study: Study, wanted: Sequence[Planned], workers: int) -> list[list[Planned]]:
    """Runs by how many generations they have behind them, the longest first within a wave.

    Seeds beyond the number of workers come a wave later: the first wave has one run a seed, and whoever is
    done with it would wait for the others.
    """
    seeds = sorted({seed for _, seed in wanted})

    def depth(run: RunConfig) -> int:
        return max((1 + depth(parent) for parent in study.parents(run)), default=0)

    found: dict[int, list[Planned]] = {}
    for run, seed in wanted:
        found.setdefault(depth(run) + seeds.index(seed) // workers, []).append((run, seed))
    return [sorted(found[d], key=lambda pair: -pair[0].steps) for d in sorted(found)]
