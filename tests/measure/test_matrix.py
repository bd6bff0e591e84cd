"""The tables of planted updates hold what direct computation gives."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from planted import PROFILE, STEPS, extracted_study, table
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.metrics import jaccard_score

from paper_lib.geometry.sparsity import half_ulp
from paper_lib.measure.matrix import measure_matrix, measure_rescaled
from paper_lib.training.checkpoints import load_checkpoint, projection_matrices, step_path


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with extracted_study(tmp_path_factory.mktemp("data")) as data_dir:
        yield data_dir


def value(frame: pd.DataFrame, metric: str, k: float | None = None) -> float:
    chosen = frame[(frame["metric"] == metric) & (True if k is None else frame["k"] == k)]
    assert len(chosen) == 1, f"{len(chosen)} rows of {metric}"
    return float(chosen["value"].iloc[0])


def stored(data_dir: Path, run: str, step: int, name: str) -> np.ndarray:
    directory = data_dir / "runs" / "planted" / run / "seed_0"
    return load_checkpoint(step_path(directory, step))[name].double().numpy()


def top(values: np.ndarray, alpha: float) -> np.ndarray:
    mask = np.zeros(values.size, dtype=bool)
    mask[np.argsort(values, axis=None)[::-1][: round(alpha * values.size)]] = True
    return mask.reshape(values.shape)


@pytest.mark.parametrize("run", ["sft", "opd", "rlvr"])
@pytest.mark.parametrize(("layer", "module"), [(0, "q"), (1, "k"), (1, "down")])
def test_every_metric_is_what_its_formula_gives(extracted: Path, run: str, layer: int, module: str) -> None:
    block = "self_attn" if module in "qk" else "mlp"
    name = f"model.layers.{layer}.{block}.{module}_proj.weight"
    path = [stored(extracted, run, step, name) for step in STEPS]
    w_0, w_t, w_end = path[0], path[2], path[3]
    delta_w, sigma = w_t - w_0, np.linalg.svd(w_t - w_0, compute_uv=False)
    bf16 = [torch.from_numpy(w).to(torch.bfloat16).float().numpy() for w in (w_0, w_t)]
    update = bf16[0] != bf16[1]
    u, s, vh = np.linalg.svd(w_0, full_matrices=False)
    at = table(
        extracted, "matrices", f"run == {run!r} and layer == {layer} and module == {module!r} and step == 8"
    )

    assert value(at, "parameters") == w_0.size
    assert_allclose(value(at, "update_density"), update.mean(), rtol=1e-12)
    assert_allclose(value(at, "update_sparsity"), 1 - update.mean(), rtol=1e-12)
    assert_allclose(value(at, "absolute_sparsity"), (abs(delta_w) <= 1e-5).mean(), rtol=1e-12)
    for alpha in (0.3, 0.5):
        masks = {
            "principal": top(abs((u[:, :3] * s[:3]) @ vh[:3]), alpha),
            "low_magnitude": top(-abs(w_0), alpha),
        }
        masks["principal_not_low"] = masks["principal"] & ~masks["low_magnitude"]
        for mask, entries in masks.items():
            expected = (entries & update).sum() / update.sum()
            assert_allclose(value(at, f"{mask}_overlap", alpha), expected, rtol=1e-12)
    k = min(6, min(w_0.shape) // 2)
    u_t, s_t, vh_t = np.linalg.svd(w_t, full_matrices=False)
    for side, a, b in (("u", u, u_t), ("v", vh.T, vh_t.T)):
        angles = subspace_angles(a[:, :k], b[:, :k])
        assert_allclose(value(at, f"angle_{side}_max", k), angles.max(), atol=1e-12)
        assert_allclose(value(at, f"angle_{side}_mean", k), angles.mean(), atol=1e-12)
    assert_allclose(value(at, "spectral_shift"), np.linalg.norm(s_t - s) / np.linalg.norm(s), rtol=1e-9)
    assert_allclose(value(at, "frobenius_norm"), np.linalg.norm(delta_w), rtol=1e-12)
    assert_allclose(value(at, "relative_norm"), np.linalg.norm(delta_w) / np.linalg.norm(w_0), rtol=1e-12)
    assert_allclose(value(at, "operator_norm"), sigma[0], rtol=1e-12)
    assert_allclose(value(at, "stable_rank"), (sigma**2).sum() / sigma[0] ** 2, rtol=1e-12)
    assert_allclose(value(at, "hill_index", 4), 1 / np.log(sigma[:3] / sigma[3]).mean(), rtol=1e-6)
    assert_allclose(value(at, "top_energy", 2), (sigma[:2] ** 2).sum() / (sigma**2).sum(), rtol=1e-12)
    rates = np.array(PROFILE.run(run).learning_rates()[:8])
    rms = np.sqrt((delta_w**2).mean())
    assert_allclose(value(at, "drift_ratio"), rms / np.sqrt((rates**2).sum()), rtol=1e-12)
    for metric, a, b in (
        ("subspace_alignment", delta_w, w_end - w_0),
        ("increment_alignment", w_t - path[1], w_end - w_t),
    ):
        v_a, v_b = (np.linalg.svd(x, full_matrices=False)[2][:2].T for x in (a, b))
        assert_allclose(value(at, metric, 2), np.linalg.norm(v_a.T @ v_b) ** 2 / 2, atol=1e-6)


def test_planted_structure_is_recovered(extracted: Path) -> None:
    opd = table(extracted, "matrices", "run == 'opd'").set_index("metric")["value"]
    assert_allclose(opd["stable_rank"], 2, rtol=1e-4)
    assert_allclose(opd["top_energy"], 1, rtol=1e-4)
    assert_allclose(opd["subspace_alignment"], 1, rtol=1e-4)
    assert_allclose(opd["increment_alignment"], 1, rtol=1e-4)
    rlvr = table(extracted, "matrices", "run == 'rlvr' and step == 10 and module == 'q'")
    assert_allclose(rlvr.set_index("metric")["value"]["update_density"], math.ceil(256 / 7) / 256)
    last = table(extracted, "matrices", "run == 'sft' and step == 10 and layer == 0 and module == 'k'")
    angles = last[last["metric"] == "angle_v"].sort_values("k")
    assert angles["k"].tolist() == [1, 2, 3, 4]
    assert_allclose(angles["value"].iloc[-1], value(last, "angle_v_max"))


def test_a_run_that_never_moved_has_rows_without_values(extracted: Path) -> None:
    still = table(extracted, "matrices", "run == 'sft_matched'").set_index("metric")["value"]
    assert set(still["update_sparsity"]) == {1.0}
    assert set(still["frobenius_norm"]) == set(still["drift_ratio"]) == {0.0}
    for metric in ("stable_rank", "hill_index", "top_energy", "subspace_alignment", "principal_overlap"):
        assert still[metric].isna().all(), metric
    path = table(extracted, "trajectories", "run == 'sft_matched'").set_index("metric")["value"]
    assert path["explained_variance_ratio"].isna().all()
    assert set(path["pca_coordinate"]) == {0.0}


def flattened(data_dir: Path, run: str) -> np.ndarray:
    folder = data_dir / "runs" / "planted" / run / "seed_0"
    names = [m.name for m in projection_matrices(step_path(folder, 0))]
    path = np.array([np.concatenate([stored(data_dir, run, s, n).ravel() for n in names]) for s in STEPS])
    return path - path[0]


@pytest.mark.parametrize(
    ("label", "metric", "members"),
    [
        ("sft", "pca_coordinate", ("sft",)),
        ("joint:opd+rlvr+sft_matched", "joint_pca_coordinate", ("opd", "rlvr", "sft_matched")),
    ],
)
def test_path_pca_is_pca_of_all_weights(
    extracted: Path, label: str, metric: str, members: tuple[str, ...]
) -> None:
    pca = PCA(2)
    expected = pca.fit_transform(np.concatenate([flattened(extracted, run) for run in members]))
    paths = table(extracted, "trajectories", "k <= 2").set_index("run")
    shares = paths.loc[label].query("metric == 'explained_variance_ratio'").sort_values("k")["value"]
    assert_allclose(shares, pca.explained_variance_ratio_, rtol=1e-9)
    points = [paths.loc[run].query(f"metric == {metric!r}") for run in members]
    found = np.concatenate([each.pivot(index="step", columns="k", values="value") for each in points])
    signs = np.sign((found * expected).sum(0))
    assert_allclose(found, signs * expected, atol=1e-9)


def test_nulls_keep_what_they_promise(extracted: Path) -> None:
    nulls = table(extracted, "nulls", "layer == 0 and module == 'up'").set_index("null")
    truth = table(extracted, "matrices", "layer == 0 and module == 'up' and step == 10")
    promised = {"same_norm_gaussian", "permuted", "rescaled_sft", "random_walk", "adam_walk"}
    assert set(nulls.index) == promised  # not rescaled_sft_matched, whose update is 0 and has no direction
    gaussian = nulls.loc["same_norm_gaussian"].query("run == 'opd'")
    assert value(gaussian, "stable_rank") > 3 > value(truth.query("run == 'opd'"), "stable_rank")
    walk = nulls.loc["random_walk"].query("run == 'opd'")
    assert sorted(set(walk["step"])) == [4, 8, 10]
    assert set(walk["metric"]) == {"stable_rank", "subspace_alignment", "increment_alignment"}
    still = nulls.loc["permuted"].query("run == 'sft_matched' and metric == 'update_sparsity'")
    assert still["value"].tolist() == [1.0]
    whole = table(extracted, "nulls", "layer == -1 and run == 'opd' and metric == 'explained_variance_ratio'")
    for walk in ("random_walk", "adam_walk"):
        shares = whole[whole["null"] == walk]
        assert shares["module"].tolist() == ["all"] * 3
        assert_allclose(shares["value"].sum(), 1)
    adam = nulls.loc["adam_walk"].query("run == 'sft_matched'")  # which never moved: the walk asks for rates
    assert value(adam.query("step == 10"), "update_sparsity") < 1
    assert value(adam.query("step == 10"), "low_magnitude_overlap", 0.3) > 0.3
    assert sorted(set(adam.query("metric == 'stable_rank'")["step"])) == [4, 8, 10]


def test_sft_rescaled_has_its_spectrum_at_the_others_norm(extracted: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    source = stored(extracted, "sft", 10, name) - stored(extracted, "sft", 0, name)
    w_0, w_t = (stored(extracted, "rlvr", step, name) for step in (0, 10))
    scaled = w_0 + source * np.linalg.norm(w_t - w_0) / np.linalg.norm(source)
    unchanged = torch.from_numpy(scaled).float().to(torch.bfloat16) == torch.from_numpy(w_0).to(
        torch.bfloat16
    )
    rows = table(
        extracted, "nulls", "null == 'rescaled_sft' and run == 'rlvr' and layer == 0 and module == 'down'"
    )
    assert_allclose(value(rows, "update_sparsity"), unchanged.double().mean().item())
    sft = table(extracted, "matrices", "run == 'sft' and layer == 0 and module == 'down' and step == 10")
    assert_allclose(value(rows, "stable_rank"), value(sft, "stable_rank"))


def test_masks_show_one_matrix_entry_by_entry(extracted: Path) -> None:
    masks = table(extracted, "masks", "run == 'rlvr'")
    assert set(zip(masks["layer"], masks["module"], strict=True)) == {(1, "q")}
    assert len(masks) == 256
    assert masks["principal"].sum() == masks["low_magnitude"].sum() == round(0.3 * 256)
    visible = masks[masks["update"]]
    assert ((visible["row"] * 16 + visible["column"]) % 7 == 0).all()


def test_an_update_at_its_own_norm_turns_and_shows_what_the_run_did() -> None:
    generator = torch.Generator().manual_seed(3)
    w_0 = torch.randn(24, 16, generator=generator).bfloat16().float()
    w_t = w_0 + 0.01 * torch.randn(24, 16, generator=generator)
    config = PROFILE.diagnostics
    run = {row[1::2]: row.value for row in measure_matrix([w_0, w_t], [0, 7], config)}
    null = measure_rescaled(w_0, w_t, w_t - w_0, 7, config)
    assert {row.metric for row in null} >= {
        "spectral_shift",
        "angle_u_max",
        "angle_v_mean",
        "update_sparsity",
    }
    for row in null:
        same = [
            value for (metric, k), value in run.items() if metric == row.metric and (k == row.k or k != k)
        ]
        assert_allclose(row.value, same[0], rtol=1e-5)


@pytest.mark.parametrize("run", ["sft", "opd", "rlvr"])
def test_the_end_of_a_run_shows_what_its_formulas_give(extracted: Path, run: str) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    w_0, w_t = (torch.from_numpy(stored(extracted, run, step, name)) for step in (0, 10))
    delta_w, observed = w_t - w_0, w_0.bfloat16() != w_t.bfloat16()
    predicted = delta_w.abs() > half_ulp(w_0)
    at = table(extracted, "matrices", f"run == {run!r} and layer == 0 and module == 'down' and step == 10")
    assert_allclose(value(at, "predicted_density"), predicted.double().mean())
    assert_allclose(value(at, "prediction_agreement"), (predicted == observed).double().mean())
    pairs = delta_w.abs().flatten()[:, None] > half_ulp(w_0).flatten()
    assert_allclose(value(at, "independent_density"), pairs.double().mean())
    u, _, vh = np.linalg.svd(w_0.numpy(), full_matrices=False)
    inside = np.linalg.norm(u[:, :3].T @ delta_w.numpy() @ vh[:3].T) ** 2 / np.linalg.norm(delta_w) ** 2
    assert_allclose(value(at, "principal_energy", 3), inside)
    assert_allclose(value(at, "principal_energy_chance", 3), 3 / 16 * 3 / 24)
    energy = np.sort(np.square(delta_w.numpy()), axis=None)[::-1]
    assert_allclose(value(at, "coordinate_energy", 0.1), energy[: math.ceil(38.4)].sum() / energy.sum())
    assert len(table(extracted, "matrices", "metric == 'predicted_density'")) == 4 * 8


def test_sparsity_depends_on_precision_and_tolerance_as_counted(extracted: Path) -> None:
    rows = table(extracted, "trajectories", "run == 'opd' and metric.str.startswith('update_sparsity')")
    names = [m.name for m in projection_matrices(step_path(extracted / "runs/planted/opd/seed_0", 0))]
    path = [np.concatenate([stored(extracted, "opd", step, n).ravel() for n in names]) for step in (0, 10)]
    a, b = (torch.from_numpy(w) for w in path)
    for precision in (torch.bfloat16, torch.float16, torch.float32):
        metric = f"update_sparsity_{str(precision)[6:]}"
        before, after = (w.to(precision).double() for w in (a, b))
        for eta in (0.0, 1e-3):
            same = (before - after).abs() <= eta * torch.maximum(before.abs(), after.abs())
            assert_allclose(value(rows, metric, eta), same.double().mean())
    bf16 = rows[rows["metric"] == "update_sparsity_bfloat16"].sort_values("k")
    assert bf16["value"].is_monotonic_increasing
    assert bf16[bf16["k"] < 2**-8]["value"].nunique() == 1
    assert bf16["value"].iloc[-1] > bf16["value"].iloc[0]
    assert value(rows, "update_sparsity_float32", 1e-3) > value(rows, "update_sparsity_float32", 0.0)


def test_pairs_compare_what_each_run_shows(extracted: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    masks = {}
    for run in ("opd", "rlvr"):
        w_0, w_t = (torch.from_numpy(stored(extracted, run, step, name)).bfloat16() for step in (0, 10))
        masks[run] = (w_0 != w_t).numpy().ravel()
    rows = table(extracted, "pairs", "run == 'opd' and other == 'rlvr' and layer == 1 and module == 'k'")
    assert set(rows["seed"]) == set(rows["other_seed"]) == {0}
    assert_allclose(value(rows, "jaccard"), jaccard_score(masks["opd"], masks["rlvr"]))
    both = (masks["opd"] & masks["rlvr"]).sum()
    assert_allclose(value(rows, "coverage"), both / masks["rlvr"].sum())
    assert_allclose(value(rows, "reverse_coverage"), both / masks["opd"].sum())
    assert set(table(extracted, "pairs", "other == 'sft_matched'")["run"]) == {"opd", "rlvr"}
