"""How an answer is judged: right, or wrong in a way that has a name.

A judge compares an answer with what the package computes, and with what well-known mistakes compute in its
place. What it says names the mistake and where to look, and never the value that was asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike


class Wrong(Exception):
    """What to tell whoever gave the answer: the mistake, where it has a name, and what to look at."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise. judge: takes the answer and, by name, the tables that it is judged by, as `matrices` is;
    returns what a right answer shows, raises Wrong otherwise."""

    name: str
    title: str
    minutes: int
    judge: Callable[..., str]

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise ValueError(f"minutes is {self.minutes}, expected at least 1 for exercise {self.name}")

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that it is judged by."""
        return tuple(signature(self.judge).parameters)[1:]


def exercise(name: str, title: str, *, minutes: int) -> Callable[[Callable[..., str]], Exercise]:
    """Makes a judge the Exercise of that name."""
    return lambda judge: Exercise(name=name, title=title, minutes=minutes, judge=judge)


# What a function is tried on: by a phrase that names it, such as "a tall 7 × 4 matrix", its arguments.
Cases = Mapping[str, tuple[Any, ...]]
# Of one case: the right value, and by what to say those that well-known mistakes give.
Outcomes = tuple[Any, Mapping[str, Any]]


def judge_numbers(
    answer: Any,
    right: ArrayLike,
    mistakes: Mapping[str, Any],
    *,
    unit: str,
    relative: float = 0.01,
    absolute: float = 0.0,
) -> None:
    """Raise Wrong unless the answer is `right`, one number or several in order, within the tolerances.

    mistakes: what to say, and what gives it away. unit: what is asked for, as in "a share between 0 and 1".
    """
    target = np.asarray(right, dtype=float)
    value = _numbers(answer, target.shape, unit)

    def close(a: Any, b: Any) -> bool:
        return np.allclose(a, np.asarray(b, dtype=float), rtol=relative, atol=absolute)

    if close(value, target):
        return
    for message, wrong in mistakes.items():
        if close(value, wrong):
            raise Wrong(message)
    if close(value, 100 * target) or close(100 * value, target):
        raise Wrong(f"off by a factor of 100: asked is {unit}")
    if target.ndim == 0:
        raise Wrong(f"too {'large' if value > target else 'small'}: asked is {unit}")
    if close(np.sort(value), np.sort(target)):
        raise Wrong(f"the right numbers in the wrong order: asked is {unit}")
    fits = np.isclose(value, target, rtol=relative, atol=absolute)
    off = ", ".join(str(place + 1) for place in (~fits).nonzero()[0])
    raise Wrong(f"number {off} of {len(target)} is not right: asked is {unit}")


def judge_function(
    answer: Any, outcomes: Callable[..., Outcomes], cases: Cases, *, returns: str, relative: float = 1e-6
) -> None:
    """Raise Wrong unless the function gives the right value on all cases.

    outcomes: of a case's arguments; a mistake is told where the answer agrees with it on all cases. returns:
    what the function should return. What it raises is told in one line.
    """
    known = [outcomes(*deepcopy(arguments)) for arguments in cases.values()]
    wanted = [_array(right) for right, _ in known]
    found = [called(answer, name, arguments, returns) for name, arguments in cases.items()]
    if _agree(found, wanted, relative):
        return
    for message in known[0][1]:
        if _agree(found, [_array(mistakes[message]) for _, mistakes in known], relative):
            raise Wrong(message)
    fits = [_agree([f], [w], relative) for f, w in zip(found, wanted, strict=True)]
    first = fits.index(False)
    where, value, target = list(cases)[first], found[first], wanted[first]
    if value.shape != target.shape:
        raise Wrong(f"on {where} it returns shape {value.shape}, expected {returns}: shape {target.shape}")
    if not np.isfinite(value).all():
        raise Wrong(f"on {where} it returns {value[~np.isfinite(value)].flat[0]}: is something divided by 0?")
    others = [name for name, fit in zip(cases, fits, strict=True) if fit]
    also = f", though right on {others[0]}" if others else ""
    if target.ndim == 0:
        raise Wrong(f"too {'large' if value > target else 'small'} on {where}{also}")
    off = int((~np.isclose(value, target, rtol=relative, atol=relative)).sum())
    raise Wrong(f"{off} of {value.size} entries are off on {where}{also}")


def called(answer: Any, name: str, arguments: tuple[Any, ...], returns: str) -> Any:
    """What the answer, a function, returns on a case, as an array; Wrong, in one line, where it cannot."""
    result = result_of(answer, name, arguments, returns)
    return _array(result, f"on {name} it returns a {type(result).__name__} of no numbers, expected {returns}")


def result_of(answer: Any, name: str, arguments: tuple[Any, ...], returns: str) -> Any:
    """What the answer returns on a copy of a case's arguments; Wrong where it is no function or raises."""
    if not callable(answer):
        raise Wrong(f"answer is a {type(answer).__name__}, expected a function that returns {returns}")
    try:
        result = answer(*deepcopy(arguments))
    except Exception as error:  # whatever a reader's code may raise
        reason = (str(error).splitlines() or [""])[0][:160]
        raise Wrong(f"your function raised {type(error).__name__} on {name}: {reason}") from None
    if result is None:
        raise Wrong(f"on {name} it returns None, expected {returns}: is there a `return`?")
    return result


def as_matrix(value: Any, shape: torch.Size, name: str, where: str) -> torch.Tensor:
    """What an answer returned as a float64 matrix; Wrong unless it is finite and of that shape."""
    wrong = f"on {where}, {name} is no finite matrix of shape {tuple(shape)}"
    array = _array(value, wrong)
    if array.shape != tuple(shape) or not np.isfinite(array).all():
        raise Wrong(wrong)
    return torch.from_numpy(array.copy())


def shaped_cases(seed: int, *more: Any) -> dict[str, tuple[Any, ...]]:
    """A tall, a wide and a square float64 matrix with a falling spectrum, followed by `more` arguments."""
    generator = torch.Generator().manual_seed(seed)
    cases = {}
    for kind, shape in {"tall": (9, 5), "wide": (5, 8), "square": (6, 6)}.items():
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        u, _, vh = torch.linalg.svd(noise, full_matrices=False)
        spectrum = 0.7 ** torch.arange(min(shape), dtype=torch.float64)
        cases[f"a {kind} {shape[0]} × {shape[1]} matrix"] = (2 * (u * spectrum) @ vh, *more)
    return cases


def shaped_pairs(seed: int, size: float, k: int) -> Cases:
    """Those matrices of `seed`, the same with `size` times those of the next seed added, and k."""
    others = shaped_cases(seed + 1)
    return {name: (a, a + size * others[name][0], k) for name, (a,) in shaped_cases(seed).items()}


def _array(value: Any, otherwise: str = "") -> np.ndarray:
    """In float64; Wrong, with what to say otherwise, where that is impossible."""
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(otherwise) from None


def _numbers(answer: Any, shape: tuple[int, ...], unit: str) -> np.ndarray:
    kind = type(answer).__name__
    value = _array(answer, f"answer is a {kind}, expected {unit}")
    if isinstance(answer, bool | str) or value.shape != shape:
        got = f"a {kind}" if value.ndim == 0 else f"{len(value)} values"
        raise Wrong(f"answer is {got}, expected {unit}")
    if not np.isfinite(value).all():
        raise Wrong(f"answer is not finite, expected {unit}")
    return value


def _agree(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], relative: float) -> bool:
    return all(
        f.shape == w.shape and np.allclose(f, w, rtol=relative, atol=relative, equal_nan=True)
        for f, w in zip(found, wanted, strict=True)
    )
