"""The data card of a profile's tables: what they are, how made, every column and metric, rows and checksums.

python book/making/card.py PROFILE writes data/results/PROFILE/README.md.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from paper_lib.ground.files import sha256
from paper_lib.ground.tables import TABLES, table_metadata
from paper_lib.study.profiles import get_profile

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {  # a table: what a row is
    "matrices": "a metric of the update of one weight matrix, at one snapshot of one run",
    "nulls": "the same metric of an update without the structure in question",
    "trajectories": "a metric of all matrices of a run together, at one snapshot",
    "curves": "a value logged in training, or an accuracy",
    "masks": "an entry of one matrix, at the end of one run, and the masks that hold it",
    "pairs": "a metric of the updates of two runs at their end, matrix by matrix",
    "curvature": "the curvature of the policy's KL to the start, along a direction in weight space",
    "journeys": "one weight at one snapshot, as trained and as stored",
}
COLUMNS = {  # a column: unit, meaning
    "profile": ("name", "the study that the run belongs to"),
    "run": ("name", "what was trained, as in `paper_lib/study/plan.py`"),
    "other": ("name", "the run that `run` is compared with"),
    "seed": ("number", "of the run: it decides batches, rollouts and evaluation"),
    "other_seed": ("number", "the seed of `other`"),
    "step": ("optimizer steps", "since the start of the run"),
    "layer": ("number", "of the decoder layer, from 0"),
    "module": ("name", "q, k, v, o, gate, up or down"),
    "row": ("number", "of the entry's row, from 0"),
    "column": ("number", "of the entry's column, from 0"),
    "null": ("name", "how the update without structure was made"),
    "direction": ("name", "along which the weights are moved"),
    "metric": ("name", "what was measured: the list below"),
    "k": ("by metric", "the size that a metric takes: K, an angle's index, a mask's share; empty where none"),
    "value": ("by metric", "the value"),
    "stored": ("weight", "the weight as bf16 stores it"),
    "update": ("true or false", "whether the entry changed in bf16"),
    "principal": ("true or false", "whether it is among the principal weights of W_0"),
    "low_magnitude": ("true or false", "whether it is among the smallest weights of W_0"),
}
_SHARE, _RAD, _NATS, _NUMBER = "share, 0 to 1", "radians", "nats", "number"
_OF = "; behind a colon, the task, or in `pairs` the merge of the two updates"
METRICS = {  # a metric: unit, meaning
    "absolute_sparsity": (_SHARE, "entries with |ΔW| ≤ 1e-5"),
    "angle_bound": (_RAD, "what the angles may be off by, where LAPACK's SVD was not taken"),
    "angle_u": (_RAD, "k-th principal angle of the top left singular subspaces of W_0 and W_t"),
    "angle_v": (_RAD, "the same of the right ones"),
    "angle_u_max": (_RAD, "largest of the k angles, left"),
    "angle_v_max": (_RAD, "largest of the k angles, right"),
    "angle_u_mean": (_RAD, "mean of the k angles, left"),
    "angle_v_mean": (_RAD, "mean of the k angles, right"),
    "coordinate_energy": (_SHARE, "of ‖ΔW‖² in the share k of the entries that is largest (evenness)"),
    "coasting_coverage": (
        _SHARE,
        "of the entries that the run's next step moves, those that a step on no gradient does",
    ),
    "coasting_density": (_SHARE, "entries that a step on a gradient of zero moves, by Adam's memory alone"),
    "coverage": (_SHARE, "of the entries that `other` shows, those that `run` shows"),
    "coverage_rounding": (_SHARE, "the same where rounding alone decides"),
    "curvature": (
        "nats a token per weight²",
        "vᵀFv / vᵀv of the direction v: the Hessian of the KL to the start",
    ),
    "density": (_SHARE, "entries that `run` shows changed"),
    "drift_ratio": ("ratio", "RMS of ΔW over √Σ lr², Adam's on pure noise"),
    "explained_variance_ratio": (_SHARE, "of the path, in its k-th component"),
    "forward_kl": (f"{_NATS} a token", "KL(start ‖ run) along texts of the start"),
    "forward_kl_sequence": (_NATS, "the same over a text"),
    "frobenius_norm": ("weight", "‖ΔW‖_F"),
    "gradient_norm": ("gradient", "before clipping"),
    "greedy_accuracy": (_SHARE, f"of problems that greedy decoding solves{_OF}"),
    "hill_index": (_NUMBER, "of the k largest singular values of ΔW"),
    "increment_alignment": (_SHARE, "Sim_K of a stretch of training with the last one"),
    "independent_density": (_SHARE, "entries that would show were the sizes of ΔW dealt out at random"),
    "jaccard": (_SHARE, "of the entries that both show, in those that either shows"),
    "jaccard_chance": (_SHARE, "the same for independent masks of equal density"),
    "jaccard_rounding": (_SHARE, "the same where rounding alone decides"),
    "joint_pca_coordinate": ("weight", "k-th coordinate in the plane of all runs of a seed"),
    "loss": ("by objective", "the objective's loss at the step"),
    "low_magnitude_overlap": (_SHARE, "of the changed entries, in the share k that is smallest in W_0"),
    "operator_norm": ("weight", "‖ΔW‖₂, the largest singular value"),
    "operator_norm_bound": ("weight", "what the operator norm may be off by, likewise"),
    "other_density": (_SHARE, "entries that `other` shows changed"),
    "parameters": (_NUMBER, "entries of the matrix"),
    "pca_coordinate": ("weight", "k-th coordinate of the path in its own components"),
    "predicted_density": (_SHARE, "entries with |ΔW| > ½ ULP of W_0"),
    "prediction_agreement": (_SHARE, "of entries for which that is what shows"),
    "principal_energy": (_SHARE, "of ‖ΔW‖² inside the top-k left and right subspaces of W_0"),
    "principal_energy_chance": (_SHARE, "the same for a random update"),
    "principal_not_low_chance": (_SHARE, "of all entries: principal and not small"),
    "principal_not_low_overlap": (_SHARE, "of the changed entries: principal and not small"),
    "principal_overlap": (_SHARE, "of the changed entries, in the share k that is principal in W_0"),
    "relative_norm": ("ratio", "‖ΔW‖_F / ‖W_0‖_F"),
    "reverse_coverage": (_SHARE, "of the entries that `run` shows, those that `other` shows"),
    "reverse_coverage_rounding": (_SHARE, "the same where rounding alone decides"),
    "reverse_kl": (f"{_NATS} a token", "KL(run ‖ start) along texts of the run"),
    "reverse_kl_sequence": (_NATS, "the same over a text"),
    "reward": (_SHARE, "of the step's completions that are right"),
    "sampled_accuracy": (_SHARE, f"of samples that are right{_OF}"),
    "share_inside": (_SHARE, "of the squared length of a step, inside the subspace it is confined to"),
    "spectral_shift": ("ratio", "NSS, ‖σ(W_t) − σ(W_0)‖₂ / ‖σ(W_0)‖₂"),
    "spectral_shift_bound": ("ratio", "what NSS may be off by, likewise"),
    "spectral_shift_by_lapack": ("0 or 1", "whether LAPACK's singular values had to step in"),
    "stable_rank": (_NUMBER, "‖ΔW‖_F² / ‖ΔW‖₂²"),
    "step_density": (_SHARE, "entries that the run's next step moves in bf16"),
    "subspace_alignment": (_SHARE, "Sim_K with the final subspace; in `pairs`, with that of `other`"),
    "subspace_alignment_chance": (_SHARE, "K / n"),
    "top_energy": (_SHARE, "of ‖ΔW‖² in its k largest singular directions"),
    "update_angle_bound": (_RAD, "what the directions of ΔW may be off by, likewise"),
    "update_cosine": ("−1 to 1", "cosine of the two updates as vectors"),
    "update_density": (_SHARE, "entries that bf16 shows changed"),
    "update_sparsity": (_SHARE, "entries that bf16 shows unchanged"),
    "update_sparsity_bfloat16": (_SHARE, "unchanged as bf16 stores them, at tolerance k"),
    "update_sparsity_float16": (_SHARE, "unchanged as float16 stores them, at tolerance k"),
    "update_sparsity_float32": (_SHARE, "unchanged as float32 stores them, at tolerance k"),
}
_HEAD = """\
# The tables of profile `{profile}`: a data card

{count} Parquet files, one value a row. Figures, ledger and the numbers of the README are computed from the
committed tables alone.

- **What:** weight updates of small language models ({weights} M weights, {matrices} matrices) \
after supervised fine-tuning,
  on-policy distillation and reinforcement learning, with controls and nulls. No personal data; {synthetic}.
- **How made:** `python -m paper_lib train --profile {profile}` trains every run
  ([`01_train`](../../../notebooks/01_train.py)), `extract` measures it
  ([`02_extract`](../../../notebooks/02_extract.py)), on CPU, one thread a run. The runs are in
  [`profiles.py`](../../../paper_lib/study/profiles.py). The same versions give the same bytes:
  {versions}.
- **Read with:** `pandas.read_parquet`, or `paper_lib.ground.tables.read_table`, which verifies page
  checksums. Each file's metadata has the fingerprint of its configuration ({fingerprint}) and, under `parts`,
  that of every run in it.
- **Not for:** absolute values at other sizes. The {runs} runs are of seeds {seeds}, which share bases and a
  teacher.
- **Licence and citation:** Apache-2.0; [`CITATION.cff`](../../../CITATION.cff).

`python book/making/card.py {profile}` writes this page from the tables, and a test compares the two.
"""


def card(folder: Path) -> str:
    """The page of the tables in data/results/<profile>. Raises KeyError for a column or metric without a
    description, FileNotFoundError or CompanionError for a table that cannot be read."""
    paths = {name: folder / f"{name}.parquet" for name in TABLES}
    about = table_metadata(paths["matrices"])
    seeds, runs = (pq.read_table(paths["curves"], columns=[name])[name].unique() for name in ("seed", "run"))
    metrics: dict[str, list[str]] = {}
    for name, columns in TABLES.items():
        if "metric" in columns:
            column = pq.read_table(paths[name], columns=["metric"])["metric"]
            for metric in sorted({_plain(each) for each in column.unique().to_pylist()}):
                metrics.setdefault(metric, []).append(name)
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise KeyError(f"book/making/card.py: METRICS lacks {', '.join(unknown)}")
    bar = r"\|"
    head = _HEAD.format(
        profile=folder.name,
        **_models(folder),
        count=len(paths),
        versions=", ".join(f"{name} {version}" for name, version in about["libraries"].items()),
        fingerprint=f"`{about['fingerprint']}`",
        runs=len(runs),
        seeds=f"{min(seeds.to_pylist())} to {max(seeds.to_pylist())}",
    )
    tables = [
        f"| `{name}` | {ABOUT[name]} | {', '.join(f'`{column}`' for column in columns)} "
        f"| {pq.read_metadata(paths[name]).num_rows:,} |"
        for name, columns in TABLES.items()
    ]
    types = {field.name: field.type for path in paths.values() for field in pq.read_schema(path)}
    dictionary = [f"| `{name}` | {kind} | {' | '.join(COLUMNS[name])} |" for name, kind in types.items()]
    measured = [
        f"| `{name}` | {unit} | {meaning.replace('|', bar)} | {', '.join(metrics[name])} |"
        for name, (unit, meaning) in sorted(METRICS.items())
        if name in metrics
    ]
    sums = [f"{sha256(path)}  {path.name}" for path in paths.values()]
    return "\n".join(
        [
            head,
            *("## Tables", "", "| table | a row is | columns | rows |", "|---|---|---|---|", *tables, ""),
            *("## Columns", "", "| column | type | unit | meaning |", "|---|---|---|---|", *dictionary, ""),
            *("## Metrics", "", "A name that ends in `_se` is the standard error of the name before it.", ""),
            *("| metric | unit | meaning | tables |", "|---|---|---|---|", *measured, ""),
            *("## Checksums", "", "SHA-256, for `sha256sum -c`:", "", "```text", *sums, "```", ""),
        ]
    )


def _models(folder: Path) -> dict[str, str]:
    """How large the models are, and whether they were pretrained on text."""
    wanted = [("metric", "=", "parameters"), ("run", "=", "opd")]
    rows = pq.read_table(folder / "matrices.parquet", filters=wanted)
    one = rows.to_pandas().drop_duplicates(["seed", "layer", "module"]).groupby("seed")["value"]
    pretrained = any(lineage.origin for lineage in get_profile(folder.name).lineages)
    return {
        "weights": f"{one.sum().max() / 1e6:.1f}",
        "matrices": str(one.size().max()),
        "synthetic": "tasks are\n  synthetic, the model is SmolLM2-135M-Instruct (Apache-2.0)"
        if pretrained
        else "tasks and\n  models are synthetic",
    }


def _plain(metric: str) -> str:
    """A metric without its task and without what makes it a standard error."""
    name = metric.partition(":")[0]
    return name if name in METRICS else name.removesuffix("_se")


def main() -> None:
    """Write the card of the profile that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python book/making/card.py PROFILE")
    folder = ROOT / "data" / "results" / sys.argv[1]
    (folder / "README.md").write_text(card(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
