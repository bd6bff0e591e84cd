"""Verifiable tasks: problems with a reasoning trace, disjoint splits, a verifier, a character tokenizer."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator

from paper_lib.ground.errors import CompanionError, require, require_choices

if TYPE_CHECKING:  # it takes seconds to import, and whoever reads profiles or tables needs none of it
    from transformers import PreTrainedTokenizerFast

Split = Literal["train", "validation", "test"]
PAD, END = "_", "$"
CHARACTERS = PAD + END + "?=+-,<>" + "0123456789"
CANDIDATES = 100_000  # tried in vain before a task is said to lack problems of a split
UNSEEN_ORDER = ("-", "+")  # of three terms; no model is pretrained on these


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What the model reads, a correct completion without its end mark, and its last part, the answer."""

    prompt: str
    demonstration: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One distribution of problems.

    domain: "chain_sum" (add and subtract from left to right, one operation a line of the trace) or
    "number_sorting". terms: least and most numbers in a problem; digits: least and most digits of a number.
    order: whether chain sums whose operators come in UNSEEN_ORDER are left out ("seen") or are the only ones.
    """

    name: str
    domain: Literal["chain_sum", "number_sorting"] = "chain_sum"
    terms: tuple[int, int] = (2, 3)
    digits: tuple[int, int] = (2, 2)
    order: Literal["seen", "unseen"] = "seen"

    def __post_init__(self) -> None:
        require_choices(self)
        require("terms", self.terms, 2 <= self.terms[0] <= self.terms[1], "2 <= least <= most")
        require("digits", self.digits, 1 <= self.digits[0] <= self.digits[1], "1 <= least <= most")


CHAIN_SUM = Task(name="chain_sum")
NUMBER_SORTING = Task(name="number_sorting", domain="number_sorting", terms=(3, 5), digits=(1, 2))
MORE_TERMS = Task(name="more_terms", terms=(4, 4))
LARGER_NUMBERS = Task(name="larger_numbers", digits=(3, 3))
UNSEEN_OPERATORS = Task(name="unseen_operators", terms=(3, 3), order="unseen")
SMALL_SUMS = Task(name="small_sums", digits=(1, 1))
SMALL_SORTING = Task(name="small_sorting", domain="number_sorting", terms=(3, 4), digits=(1, 1))


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on the process or the platform)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded_generator(*parts: object) -> Generator:
    """An own generator for every purpose and step, so that a resumed run draws what the unbroken one drew."""
    return Generator().manual_seed(stable_seed(*parts))


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to, by its hash: a tenth each for validation and test, whatever the seed."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def problems(task: Task, *, split: Split, number: int, seed: object) -> list[Problem]:
    """The first `number` problems of a split in the order that the seed gives.

    Raises CompanionError for a number below 1 and for a task that has no such problems.
    """
    if number < 1:
        raise CompanionError(f"task {task.name}: {number} {split} problems asked for; at least one is needed")
    return list(islice(_stream(task, split, seed), number))


def _stream(task: Task, split: Split, seed: object) -> Iterator[Problem]:
    # reasoning-gym seeds item i with seed + i, so neighbouring seeds would give nearly the same problems.
    first = stable_seed(task.name, split, seed)
    dataset = _dataset(task, first)
    in_vain = 0
    for index in count():
        if in_vain == CANDIDATES:
            none = f"no {split} problem among {CANDIDATES} candidates"
            raise CompanionError(f"task {task.name}: {none}; widen its ranges")
        in_vain += 1
        item = dataset[index]["metadata"]
        if task.domain == "number_sorting":
            numbers, ordered = (
                ",".join(str(int(float(x))) for x in item[f"{kind}_numbers"])
                for kind in ("original", "sorted")
            )
            sign = "<" if item["direction"] == "ascending" else ">"
            problem = Problem(prompt=f"?{sign}{numbers}=", demonstration=ordered, answer=ordered)
        else:
            tokens = item["expression"].split()
            if (tuple(tokens[1::2]) == UNSEEN_ORDER) != (task.order == "unseen"):
                continue
            problem = _chain_problem(tokens)
        if split_of(problem.prompt) == split:
            in_vain = 0
            yield problem


def _dataset(task: Task, seed: int) -> Any:
    from reasoning_gym import create_dataset  # takes seconds to import, and reading tables needs none of it

    (few, many), (short, long) = task.terms, task.digits
    if task.domain == "number_sorting":
        low, high = 10 ** (short - 1) * (short > 1), 10**long - 1
        ranges = {"min_numbers": few, "max_numbers": many, "min_value": low, "max_value": high}
        ranges |= {"min_decimals": 0, "max_decimals": 0}
    else:
        ranges = {"min_terms": few, "max_terms": many, "min_digits": short, "max_digits": long}
    return create_dataset(task.domain, size=10**9, seed=seed, **ranges)


def _chain_problem(tokens: list[str]) -> Problem:
    """37 + 45 - 12 becomes the prompt ?37+45-12= and the trace 82-12=70."""
    total, lines = int(tokens[0]), []
    for position in range(1, len(tokens), 2):
        term = int(tokens[position + 1])
        total += term if tokens[position] == "+" else -term
        lines.append(str(total) + "".join(tokens[position + 2 :]))
    return Problem(prompt="?" + "".join(tokens) + "=", demonstration="=".join(lines), answer=str(total))


def verify(completion: str, problem: Problem) -> bool:
    """Whether the completion's last line is the answer. A completion that never ended is to be passed with
    no end mark and counts by its text; `rollouts.rewards` refuses those."""
    return completion.rsplit("=", 1)[-1] == problem.answer


def corrupt(text: str, probability: float, generator: Generator) -> str:
    """Each digit replaced, with the given probability, by another one, as sloppy text would have it."""
    if probability == 0:
        return text
    hit = torch.rand(len(text), generator=generator) < probability
    shift = torch.randint(1, 10, (len(text),), generator=generator)
    return "".join(
        str((int(c) + int(s)) % 10) if c.isdigit() and h else c
        for c, h, s in zip(text, hit, shift, strict=True)
    )


@cache
def character_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a character; `_` pads and `$` ends. Saved and loaded like any Hugging Face tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
