"""The command line of `compare`."""

import argparse
import json
import sys
from typing import Any

from paper_lib.arguments import parameter, positive
from paper_lib.errors import CompanionError

SIZES = ("principal_rank", "angle_k", "K", "hill_k", "energy_k")
_EXAMPLES = """\
examples:
  python -m paper_lib compare base tuned --nulls --out compared/tuned
  python -m paper_lib compare base run/checkpoint-300 --trajectory run --learning-rate 1e-6 --out compared/run
  python -m paper_lib compare base adapter --modules q,k,v,o -s K=8 --out compared/adapter
  python -m paper_lib compare base tuned --out compared/tuned --backend dask --address tcp://head:8786

Many workers or one with many threads: a worker takes at most 1.5 GB and twelve float64 copies of its matrix,
so few but huge matrices may be quicker with --workers 1 --threads N. Give Dask workers --nthreads 1."""


def add_compare(commands: Any) -> None:
    """Add the command to an `argparse` group of commands."""
    compare = commands.add_parser(
        "compare",
        help="Measure the update between two checkpoints of your own",
        description="Measure the update between two checkpoints of your own, and say where it lies between "
        "SFT, OPD and RLVR.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(work=_compare)
    add = compare.add_argument
    add("base", metavar="BASE", help="folder or safetensors file: where training started")
    add("finetuned", metavar="FINETUNED", help="the same after training; a LoRA adapter is merged into BASE")
    add("--out", required=True, metavar="DIR", help="tables and report.html go there; kept parts are reused")
    add("--trajectory", nargs="+", default=[], metavar="DIR", help="folders with the snapshots between")
    add("--steps", type=positive, metavar="N", help="optimizer steps behind FINETUNED")
    rates = compare.add_mutually_exclusive_group()
    rates.add_argument("--learning-rate", type=_rate, metavar="X", help="constant: adds the drift ratio")
    rates.add_argument("--learning-rates", metavar="FILE", help="the same from a JSON list, one per step")
    add(
        "--modules",
        default="all",
        metavar="NAMES",
        help="all (default), attention, mlp, or q,k,…,lm_head",
    )
    add("--nulls", action="store_true", help="measure random updates of the same size too (thrice the time)")
    add("--exact", action="store_true", help="complete decompositions, however large the matrices")
    add(
        *("--size", "-s"),
        type=_size,
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"another size of the diagnostics ({', '.join(SIZES)}); may be repeated",
    )
    add("--hub", action="store_true", help="allow BASE and FINETUNED to be names on the Hugging Face Hub")
    add("--workers", type=positive, metavar="N", help="processes (default: as cores and memory allow)")
    add("--threads", type=positive, default=1, metavar="N", help="of each process (default: 1)")
    add("--backend", choices=("loky", "dask", "ray"), default="loky", help="default: this machine (loky)")
    add("--address", metavar="ADDR", help="of the Dask scheduler or the Ray head")
    add("--no-report", action="store_true", help="tables only")
    add("--force", action="store_true", help="measure again what is there")


def _compare(options: argparse.Namespace) -> int:
    from paper_lib.compare import compare

    compared = compare(
        options.base,
        options.finetuned,
        options.out,
        trajectory=options.trajectory,
        last_step=options.steps,
        learning_rates=_learning_rates(options),
        modules=options.modules,
        sizes=dict(options.size),
        nulls=options.nulls,
        exact=options.exact,
        hub=options.hub,
        workers=options.workers,
        threads=options.threads,
        backend=options.backend,
        address=options.address,
        force=options.force,
    )
    if not options.no_report:
        from paper_lib.report import write_report

        print(f"report in {write_report(options.out)}")
    for name, reason in compared.failed.items():
        print(f"error: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
    return 1 if compared.failed else 0


def _learning_rates(options: argparse.Namespace) -> Any:
    from paper_lib.comparison import require_rates

    if options.learning_rates is None:
        return options.learning_rate
    try:
        with open(options.learning_rates, encoding="utf-8") as file:
            rates = json.load(file)
    except (OSError, ValueError) as error:
        raise CompanionError(f"{options.learning_rates} is no JSON file to read: {error}") from None
    if not isinstance(rates, list) or not all(type(rate) in (int, float) for rate in rates):
        raise CompanionError(f"{options.learning_rates} holds no list of numbers, one per optimizer step")
    require_rates(rates, options.learning_rates)
    return rates


def _size(text: str) -> tuple[str, Any]:
    name, value = parameter(text)
    if name not in SIZES or type(value) is not int or value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=N, with NAME of {', '.join(SIZES)}"
        )
    return name, value


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate in (0, 1)")
    return rate
