"""Two checkpoints whose update is planted: every metric is what was planted, whatever happens on the way."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from patience import PATIENCE
from safetensors.torch import save_file
from torch import Tensor

from paper_lib.__main__ import main
from paper_lib.compare import run
from paper_lib.compare.adapters import LowRank
from paper_lib.compare.run import compare
from paper_lib.compare.summary import read_comparison
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import read_table
from paper_lib.measure import parts
from paper_lib.training.checkpoints import save_checkpoint

SHAPES = {"q": (64, 64), "k": (32, 64), "up": (96, 64), "down": (64, 96)}
RANK = 4
SIZES = {"K": RANK, "principal_rank": 4, "angle_k": 8, "hill_k": 8, "energy_k": RANK}
PLACES = [(layer, module) for layer in range(2) for module in SHAPES]


def name(layer: int, module: str) -> str:
    block = "self_attn" if module in "qkvo" else "mlp"
    return f"model.layers.{layer}.{block}.{module}_proj.weight"


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {"model.norm.weight": torch.ones(64)}
    for layer, module in PLACES:
        found[name(layer, module)] = torch.randn(SHAPES[module], generator=generator) / 8
    return found


def plant(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """A rank-4 update of equal singular values 0.05, float64, and its right singular vectors (n, 4)."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, RANK, generator=generator, dtype=torch.float64))[0] for n in shape)
    return 0.05 * u @ v.T, v


def checkpoint(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Path:
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_checkpoint(stored, folder / "model.safetensors")
    return folder


def tuned(start: dict[str, Tensor], share: float = 1.0) -> dict[str, Tensor]:
    return {
        name: w if w.ndim < 2 else w + (share * plant(tuple(w.shape), seed)[0]).to(w.dtype)
        for seed, (name, w) in enumerate(start.items())
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    start = weights()
    return checkpoint(folder / "base", start), checkpoint(folder / "tuned", tuned(start))


@pytest.fixture(scope="module")
def compared(pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    compare(*pair, out, sizes=SIZES, nulls=True, exact=True)
    return read_comparison(out)


def values(table: pd.DataFrame, metric: str, k: float | None = None) -> pd.Series:
    rows = table[table["metric"] == metric]
    rows = rows if k is None else rows[(rows["k"] - k).abs() < 1e-9]
    return rows.set_index(["layer", "module"])["value"]


def test_sparsity_is_a_direct_count_in_bf16(pair, compared):
    start = weights()
    end = tuned(start)
    measured = values(compared.matrices, "update_sparsity")
    for layer, module in PLACES:
        a, b = (w[name(layer, module)].bfloat16() for w in (start, end))
        assert measured[layer, module] == pytest.approx((a == b).double().mean().item(), abs=1e-12)


def test_the_planted_rank_and_its_energy_come_back(compared):
    assert values(compared.matrices, "stable_rank").to_numpy() == pytest.approx(RANK, rel=1e-4)
    assert values(compared.matrices, "top_energy").to_numpy() == pytest.approx(1, abs=1e-6)
    assert values(compared.matrices, "operator_norm").to_numpy() == pytest.approx(0.05, rel=1e-4)


def test_the_planted_subspace_comes_back(pair):
    start = weights()
    end = tuned(start)
    for seed, (key, w) in enumerate(start.items()):
        if w.ndim == 2:
            _, v = plant(tuple(w.shape), seed)
            delta_w = end[key].double() - w.double()
            found = torch.linalg.svd(delta_w, full_matrices=False)[2][:RANK].T
            assert (found.T @ v).square().sum().item() / RANK == pytest.approx(1, abs=1e-6)


def test_overlaps_of_a_plant_independent_of_the_weights_are_its_nulls(compared):
    """Visibility depends on |w|, so chance is not α: it is what the same magnitudes in random places give."""
    for metric in ("principal_overlap", "low_magnitude_overlap"):
        measured = values(compared.matrices, metric, 0.3)
        null = values(compared.nulls[compared.nulls["null"] == "permuted"], metric, 0.3)
        for place in PLACES:
            visible = values(compared.matrices, "update_density")[place] * math.prod(SHAPES[place[1]])
            error = math.sqrt(0.25 / visible)
            assert abs(measured[place] - null[place]) < 5 * math.sqrt(2) * error


def test_overlaps_are_at_chance_where_rounding_hides_nothing(tmp_path):
    """Weights of one magnitude: every entry is as visible as another, so each α-mask has its share."""
    generator = torch.Generator().manual_seed(7)
    start = {n: w if w.ndim < 2 else w.sign() for n, w in weights().items()}
    end = {}
    for key, w in start.items():
        hit = torch.rand(w.shape, generator=generator) < 0.5
        end[key] = w if w.ndim < 2 else torch.where(hit, w * 1.5, w)
    base, fine = checkpoint(tmp_path / "a", start), checkpoint(tmp_path / "b", end)
    compare(base, fine, tmp_path / "out", sizes=SIZES)
    table = read_table(tmp_path / "out" / "matrices.parquet")
    for metric in ("principal_overlap", "low_magnitude_overlap"):
        for place, overlap in values(table, metric, 0.3).items():
            visible = 0.5 * math.prod(SHAPES[place[1]])
            assert abs(overlap - 0.3) < 5 * math.sqrt(0.3 * 0.7 / visible)


def test_a_trajectory_gives_alignment_and_a_path(pair, tmp_path):
    start = weights()
    for step, share in ((10, 0.3), (20, 0.7), (30, 1.0)):
        checkpoint(tmp_path / "run" / f"checkpoint-{step}", tuned(start, share))
    compare(
        *(pair[0], tmp_path / "run" / "checkpoint-30", tmp_path / "out"),
        trajectory=[tmp_path / "run"],
        learning_rates=1e-3,
        sizes=SIZES,
        nulls=True,
    )
    found = read_comparison(tmp_path / "out")
    assert found.account["steps"] == [0, 10, 20, 30]
    assert values(found.matrices, "subspace_alignment").to_numpy() == pytest.approx(1, abs=1e-4)
    path = found.trajectories.set_index(["metric", "step", "k"])["value"]
    assert path["explained_variance_ratio", 30, 1.0] == pytest.approx(1, abs=1e-4)
    assert path["subspace_alignment", 10, RANK] == pytest.approx(1, abs=1e-4)
    ratio = values(found.matrices[found.matrices["step"] == 30], "drift_ratio")
    rms = values(found.matrices[found.matrices["step"] == 30], "frobenius_norm")
    assert ratio[0, "q"] == pytest.approx(rms[0, "q"] / 64 / (1e-3 * 30**0.5))
    walk = found.nulls.query("null == 'random_walk' and module == 'all'")
    assert "explained_variance_ratio" in set(walk["metric"])


def test_what_is_measured_is_not_measured_again(pair, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    compare(*pair, out, sizes=SIZES)
    whole = (out / "matrices.parquet").read_bytes()
    (out / "matrices.parquet").unlink()
    (out / "parts" / "1_q.parquet").unlink()
    (out / "parts" / "0_k.parquet").write_bytes(b"half a fi")
    asked = []
    measure = run.measure_matrix
    monkeypatch.setattr(
        run,
        "measure_matrix",
        lambda w, *rest, **k: asked.append(w[0].shape) or measure(w, *rest, **k),
    )
    compare(*pair, out, sizes=SIZES)
    assert asked == [SHAPES["k"], SHAPES["q"]]
    assert "6 of 8 parts are up to date" in capsys.readouterr().out
    assert (out / "matrices.parquet").read_bytes() == whole
    compare(*pair, out, sizes=SIZES | {"K": 2})
    assert len(asked) == 10


def test_a_report_of_earlier_tables_does_not_outlive_them(pair, tmp_path):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    stale = ("report.html", "07_your_checkpoints.ipynb", "figures/fig_by_layer.png")
    for path in (*stale, "notes.txt", "figures/mine.png"):
        (out / path).touch()
    assert main(["compare", *map(str, pair), "--out", str(out), "--no-report"]) == 0
    left = {str(path.relative_to(out)) for path in out.rglob("*.*") if path.parent.name != "parts"}
    assert left == {"matrices.parquet", "pairing.json", "summary.json", "notes.txt", "figures/mine.png"}


@pytest.mark.slow
def test_a_killed_comparison_goes_on(pair, tmp_path):
    script = (
        "import os, signal, sys; from paper_lib.compare import run\n"
        "from paper_lib.compare.run import compare\n"
        "measure, calls = run.measure_matrix, []\n"
        "def deadly(*rest, **k):\n"
        "    calls.append(rest)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return measure(*rest, **k)\n"
        "run.measure_matrix = deadly\n"
        f"compare(sys.argv[1], sys.argv[2], sys.argv[3], sizes={SIZES})\n"
    )
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, *map(str, pair), str(out)]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in out.glob("parts/*.parquet")}
    assert len(done) == 2
    compare(*pair, out, sizes=SIZES)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    compare(*pair, tmp_path / "again", sizes=SIZES)
    assert (out / "matrices.parquet").read_bytes() == (tmp_path / "again" / "matrices.parquet").read_bytes()


@pytest.mark.slow
def test_the_tables_do_not_depend_on_the_number_of_workers(pair, compared, tmp_path):
    compare(*pair, tmp_path, sizes=SIZES, nulls=True, exact=True, workers=2)
    for path in compared.paths:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_matrix_that_is_not_finite_leaves_the_others(pair, tmp_path, capsys):
    broken = tuned(weights())
    broken[name(1, "up")][3, 5] = math.nan
    fine = checkpoint(tmp_path / "broken", broken)
    out = tmp_path / "out"
    assert main(["compare", str(pair[0]), str(fine), "--out", str(out), "--no-report"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for word in ("model.safetensors", "layers.1.mlp.up_proj", "1 of 6144 entries not finite"):
        assert word in told
    found = read_comparison(out)
    assert list(found.account["failed"]) == [name(1, "up")]
    assert len(values(found.matrices, "stable_rank")) == 7


def test_an_adapter_matrix_that_cannot_be_merged_leaves_the_others(pair, tmp_path, monkeypatch):
    merge = LowRank.__call__

    def fails(self, weight, piece):
        if "layers.0" in self.a.name:
            raise RuntimeError("expected m1 and m2 to have the same dtype")
        return merge(self, weight, piece)

    monkeypatch.setattr(LowRank, "__call__", fails)
    factors = {}
    for layer in (0, 1):
        module = f"base_model.model.{name(layer, 'q').removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.full((2, 64), 0.01)
        factors[f"{module}.lora_B.weight"] = torch.full((64, 2), 0.01)
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    failed = compare(pair[0], tmp_path / "adapter", tmp_path / "out", sizes=SIZES)
    assert list(failed) == [name(0, "q")]
    assert re.match(
        r"\S*adapter_model\.safetensors: model\.layers\.0\.self_attn\.q_proj", failed[name(0, "q")]
    )
    assert len(values(read_table(tmp_path / "out" / "matrices.parquet"), "update_sparsity")) == 7


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_account_is_one_line(pair, tmp_path, text):
    (tmp_path / "pairing.json").write_text(text)
    with pytest.raises(CompanionError, match=r"pairing\.json .*: `python -m paper_lib compare") as caught:
        read_comparison(tmp_path)
    assert "\n" not in str(caught.value)


def test_identical_checkpoints_have_no_update(pair, tmp_path):
    compare(pair[0], pair[0], tmp_path, sizes=SIZES, nulls=True)
    table = read_table(tmp_path / "matrices.parquet")
    assert (values(table, "update_sparsity") == 1).all()
    assert (values(table, "frobenius_norm") == 0).all()
    assert (values(table, "spectral_shift") == 0).all()
    assert values(table, "stable_rank").isna().all()
    assert not table["value"].isin([math.inf, -math.inf]).any()


def test_a_full_disk_is_one_reason_and_keeps_what_was_written(pair, tmp_path, monkeypatch):
    written = []

    def full(rows, path, write=parts.write_table, **options):
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(rows, path, **options)

    monkeypatch.setattr(parts, "write_table", full)
    failed = compare(*pair, tmp_path, sizes=SIZES)
    assert len(failed) == 5
    assert all("could not be written (No space left on device)" in reason for reason in failed.values())
    assert len(values(read_table(tmp_path / "matrices.parquet"), "stable_rank")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": "qq"}, "no module 'qq'"),
        ({"modules": ""}, "no module ''; there are all, attention, mlp, down, k, "),
        ({"modules": "lm_head"}, "no module .lm_head.; there are"),
        ({"sizes": {"K": 65}}, "K = 65 does not fit"),
        ({"learning_rates": 1e-3}, "give --steps"),
        ({"learning_rates": [1e-3], "last_step": 3}, "1 learning rates for 3 optimizer steps"),
        ({"learning_rates": []}, "the list of learning rates holds nothing: give"),
        ({"learning_rates": [0, 0]}, "the list of learning rates holds zeros alone"),
        ({"learning_rates": [1e-3, math.nan]}, "holds nan: a learning rate is finite and at least 0"),
        ({"learning_rates": [1e-3, -1]}, "holds -1: a learning rate"),
        ({"learning_rates": math.inf, "last_step": 2}, "holds inf: a learning rate"),
        ({"backend": "slurm"}, "no backend 'slurm'"),
        ({"address": "tcp://here:1"}, "--address is of a cluster"),
        ({"backend": "dask"}, "needs --address"),
        ({"backend": "dask", "address": "nowhere"}, "no Dask scheduler answers at nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(pair, tmp_path, options, message):
    with pytest.raises(CompanionError, match=message):
        compare(*pair, tmp_path / "out", **options)


@pytest.mark.parametrize("text", ["[]", "[0, 0]", "[1e-3, NaN, -1]", "[1e-3, Infinity]"])
def test_a_file_of_impossible_learning_rates_is_named(pair, tmp_path, capsys, text):
    (tmp_path / "rates.json").write_text(text)
    command = ["compare", *map(str, pair), "--learning-rates", str(tmp_path / "rates.json")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert re.fullmatch(r"error: \S+rates\.json holds .*\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_learning_rates_of_zero_up_to_the_first_snapshot_are_refused(pair, tmp_path):
    start = weights()
    for step, share in ((1, 0.5), (2, 1.0)):
        checkpoint(tmp_path / "run" / f"checkpoint-{step}", tuned(start, share))
    ends = pair[0], tmp_path / "run" / "checkpoint-2"
    with pytest.raises(CompanionError, match="every learning rate up to step 1, the first snapshot, is 0"):
        compare(*ends, tmp_path / "out", trajectory=[tmp_path / "run"], learning_rates=[0, 1e-3])


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_cluster_package_says_what_to_install(pair, tmp_path, monkeypatch, backend):
    for module in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CompanionError, match=r"needs the package (distributed|ray) .*: pip install "):
        compare(*pair, tmp_path / "out", backend=backend, address="tcp://127.0.0.1:1")


def test_a_dask_scheduler_has_the_time_to_answer_that_it_was_given(pair, tmp_path, monkeypatch):
    asked = []

    def silent(address, **options):
        asked.append((address, options["timeout"]))
        raise TimeoutError("no answer")

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=silent))
    with pytest.raises(CompanionError, match="no Dask scheduler answers at tcp://there:1: no answer"):
        compare(*pair, tmp_path / "out", backend="dask", address="tcp://there:1", timeout=45)
    assert asked == [("tcp://there:1", 45)]


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_tables(pair, compared, tmp_path):
    from distributed import LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options, silence_logs=50) as cluster:
        compare(
            *(*pair, tmp_path),
            sizes=SIZES,
            nulls=True,
            exact=True,
            backend="dask",
            address=cluster.scheduler_address,
            timeout=PATIENCE,
        )
    for path in compared.paths:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_account_names_what_had_no_partner(tmp_path):
    start = weights()
    end = tuned(start)
    end["model.layers.2.mlp.up_proj.weight"] = torch.ones(8, 8)
    end[name(0, "k")] = torch.ones(16, 64)
    pair = checkpoint(tmp_path / "a", start), checkpoint(tmp_path / "b", end)
    compare(*pair, tmp_path / "out", modules="attention")
    account = json.loads((tmp_path / "out" / "pairing.json").read_text())
    assert [m["name"] for m in account["measured"]] == [name(0, "q"), name(1, "q"), name(1, "k")]
    left_out = account["left_out"]
    assert list(left_out["only in the fine-tuned"]) == ["model.layers.2.mlp.up_proj.weight"]
    assert list(left_out["mismatched"]) == [name(0, "k")]
    assert list(left_out["skipped"]) == ["model.norm.weight"]
    assert len(left_out["not asked for"]) == 4
