"""What those who train ask for: a verdict for CI, two updates of one base, an adapter alone, a forecast."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paper_lib.__main__ import main
from paper_lib.compare.answer import answer, beside_table, module_table
from paper_lib.compare.facts import visible_shares
from paper_lib.compare.placing import REFERENCE
from paper_lib.compare.run import compare
from paper_lib.compare.sources import open_source
from paper_lib.compare.summary import read_comparison, read_summary, summary
from paper_lib.geometry.rounding import adam_bound, half_ulp_counts
from paper_lib.geometry.sparsity import half_ulp
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import MODULES
from paper_lib.ground.tables import read_table
from paper_lib.study.profiles import get_profile
from paper_lib.summaries import at_end, over_matrices
from paper_lib.training.checkpoints import save_checkpoint

NAMES = [f"model.layers.{layer}.self_attn.{module}_proj.weight" for layer in (0, 1) for module in "qk"]
NORM = "model.layers.0.input_layernorm.weight"


def noise(seed: int, shape: tuple[int, ...] = (64, 64)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 8


def checkpoint(folder: Path, weights: dict[str, torch.Tensor]) -> str:
    save_checkpoint(weights, folder / "model.safetensors")
    return str(folder)


def start() -> dict[str, torch.Tensor]:
    return {name: noise(i) for i, name in enumerate(NAMES)} | {NORM: torch.ones(64)}


def moved(size: float, seed: int, rank: int = 64) -> dict[str, torch.Tensor]:
    """The start with an update of this rank in each matrix."""
    end = start()
    for i, name in enumerate(NAMES):
        a, b = noise(seed + 2 * i, (64, rank)), noise(seed + 2 * i + 1, (rank, 64))
        end[name] = end[name] + size * (a @ b if rank < 64 else noise(seed + i))
    return end


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return checkpoint(tmp_path_factory.mktemp("practice") / "base", start())


def status(*arguments: object) -> int:
    return main(["compare", *map(str, arguments), "--no-report"])


def test_the_exit_status_is_the_verdict_that_was_asked_for(base, tmp_path, capsys):
    noisy = checkpoint(tmp_path / "noisy", moved(0.02, seed=60))
    trained = checkpoint(tmp_path / "trained", moved(0.02, seed=50, rank=2) | {NORM: torch.full((64,), 1.1)})
    out = tmp_path / "out"
    asked = ["--nulls", "--fail-if", "identical", "not-more-than-size", "frozen-norms"]
    assert status(base, base, "--out", out, *asked) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"error: {base} is identical",
        f"error: {base} is frozen-norms",
    ]
    assert status(base, noisy, "--out", out, *asked) == 3
    assert f"error: {noisy} is not-more-than-size" in capsys.readouterr().err
    assert status(base, noisy, "--out", out) == 0
    assert status(base, trained, "--out", out, *asked) == 0
    told = json.loads((out / "summary.json").read_text())
    assert told["verdicts"] == {
        "identical": False,
        "not-more-than-size": False,
        "frozen-norms": False,
        "mostly-rounding": None,
    }
    assert "stable_rank" in told["beyond_size"]
    assert status(base, noisy, "--out", out, "--fail-if", "not-more-than-size") == 2
    assert "add --nulls" in capsys.readouterr().err


def test_the_summary_says_which_ranks_and_bytes_an_update_needs(base, tmp_path):
    tuned = checkpoint(tmp_path / "tuned", moved(0.02, seed=50, rank=2))
    compare(base, tuned, tmp_path / "out", learning_rates=1e-5, last_step=3)
    told = read_summary(tmp_path / "out")
    of = told["modules"]["q"]
    assert (of["matrices"], of["rank_99"], of["rank_99_most"], of["intruders"]) == (2, 2, 2, 0)
    assert of["patch_bytes"] == 2 * 64 * 64 * 4
    ends = [{name: w.bfloat16() for name, w in weights.items()} for weights in (start(), moved(0.02, 50, 2))]
    changed = [int((ends[0][name] != ends[1][name]).sum()) for name in NAMES if "q_proj" in name]
    assert of["patch_bytes_bf16"] == sum(min(2 * 4096, 512 + 2 * n, 6 * n) for n in changed)
    assert told["trained"]["unmoved_others"] == [NORM]
    half = torch.cat([half_ulp(start()[name]).flatten() for name in NAMES])
    assert told["trained"]["stuck_share"] == pytest.approx((half >= 1e-4).double().mean().item())
    assert told["trained"]["hidden_share"] == pytest.approx((half >= 3e-5).double().mean().item())
    assert "without float32 masters" in answer(told)
    assert set(module_table(told)["module"]) == {"q", "k"}


def test_two_updates_of_one_base_meet_as_they_were_planted(base, tmp_path):
    """The other is half of this update and half of another of the same rank: cos² = 1/2 but for rounding."""
    ours, mixed = moved(0.02, seed=50, rank=2), moved(0.02, seed=50, rank=2)
    for i, name in enumerate(NAMES):
        delta_w = (ours[name] - start()[name]).double()
        aside = (noise(90 + i, (64, 2)) @ noise(95 + i, (2, 64))).double()
        aside -= (aside * delta_w).sum() / delta_w.square().sum() * delta_w
        mixed[name] = start()[name] + (delta_w + aside * delta_w.norm() / aside.norm()).float()
    ends = checkpoint(tmp_path / "a", ours), checkpoint(tmp_path / "b", mixed)
    compare(base, ends[0], tmp_path / "out", other=ends[1], sizes={"K": 2})
    found = read_comparison(tmp_path / "out")
    told = read_summary(tmp_path / "out")
    assert (told["other"], told["beside"]["cosine"]) == ("b", pytest.approx(math.sqrt(0.5), abs=1e-4))
    assert told["beside"]["orthogonal_share"] == pytest.approx(0.5, abs=1e-4)
    assert told["beside"]["norm_ratio"] == pytest.approx(math.sqrt(0.5), abs=1e-3)
    masks = [{n: (e[n].bfloat16() != start()[n].bfloat16()) for n in NAMES} for e in (ours, mixed)]
    jaccard = [(a & b).sum() / (a | b).sum() for a, b in zip(*(m.values() for m in masks), strict=True)]
    assert told["beside"]["jaccard"] == pytest.approx(torch.stack(jaccard).mean().item())
    delta_w, other = ((e[NAMES[0]] - start()[NAMES[0]]).double() for e in (ours, mixed))
    v, v_other = (torch.linalg.svd(d).Vh[:2] for d in (delta_w, other))
    rows = found.pairs.query("metric == 'angle_v_mean' and layer == 0 and module == 'q'")["value"]
    assert rows.item() == pytest.approx(torch.linalg.svdvals(v @ v_other.mT).acos().mean().item(), abs=1e-4)
    table = beside_table(told).set_index("of the two updates")
    assert table.loc["energy orthogonal to the other", "value"] == "50 %"
    assert beside_table(summary(found, read_table(REFERENCE)))["value"].tolist() == table["value"].tolist()
    compare(base, ends[0], tmp_path / "out", sizes={"K": 2})
    assert read_comparison(tmp_path / "out").pairs is None
    assert beside_table(read_summary(tmp_path / "out")).empty


T5 = "encoder.block.0.layer.0.SelfAttention"


def adapter(folder: Path, **settings: object) -> Path:
    factors = {}
    for module in "qv":
        factors[f"base_model.model.{T5}.{module}.lora_A.weight"] = noise(1, (4, 48))
        factors[f"base_model.model.{T5}.{module}.lora_B.weight"] = noise(2, (64, 4))
    factors |= {"base_model.model.lm_head.weight": noise(3)} if "modules_to_save" in settings else {}
    folder.mkdir(parents=True)
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_of_t5_without_its_base_gives_what_needs_none(tmp_path):
    folder = adapter(tmp_path / "lora", modules_to_save=["lm_head"])
    assert status(folder, "--out", tmp_path / "out", "--learning-rate", "1e-3", "--steps", "100") == 0
    found = read_comparison(tmp_path / "out")
    delta_w = 2 * noise(2, (64, 4)).double() @ noise(1, (4, 48)).double()
    sigma = torch.linalg.svdvals(delta_w)
    values = found.matrices[found.matrices["module"] == "q"].set_index("metric")["value"]
    assert values["stable_rank"] == pytest.approx(float((sigma**2).sum() / sigma[0] ** 2), rel=1e-5)
    assert values["frobenius_norm"] == pytest.approx(delta_w.norm().item(), rel=1e-5)
    assert values["drift_ratio"] == pytest.approx((delta_w.square().mean().sqrt() / 1e-2).item(), rel=1e-5)
    assert values["energy_rank_99"] <= 4
    assert not {"update_sparsity", "spectral_shift", "relative_norm", "intruders"} & set(values.index)
    assert "lm_head.weight" in found.account["left_out"]["skipped"]
    told = read_summary(tmp_path / "out")
    assert answer(told).startswith("**`lora` against `no base`**: 2 matrices")
    assert "drift_ratio" in told["metrics"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nulls": True}, "an adapter without its base has no nulls"),
        ({"other": "elsewhere"}, "an adapter without its base has no nulls"),
    ],
)
def test_what_needs_a_base_is_refused_without_one(tmp_path, options, message):
    folder = adapter(tmp_path / "lora")
    with pytest.raises(CompanionError, match=message):
        compare(folder, None, tmp_path / "out", **options)


def test_a_checkpoint_alone_is_no_adapter(base, tmp_path):
    with pytest.raises(CompanionError, match="is no LoRA adapter in safetensors: name a base"):
        compare(base, None, tmp_path / "out")


def test_a_forecast_is_a_count_of_the_weights_that_can_show(tmp_path, capsys):
    weights = {name: noise(i).bfloat16() for i, name in enumerate(NAMES)}
    folder = checkpoint(tmp_path / "base", weights)
    plan = ["--learning-rate", "1e-5", "--steps", "100"]
    assert main(["forecast", folder, *plan]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    half = torch.cat([half_ulp(w).flatten() for w in weights.values()])
    walk = 1e-4 * torch.randn(half.shape, generator=torch.Generator().manual_seed(9))
    shares = [float(s.lstrip().rstrip("%")) for s in lines["all"].split()[1:]]
    assert shares[0] == pytest.approx(100 * (half < 1e-4).double().mean().item(), abs=0.06)
    assert shares[1] == pytest.approx(100 * (half < walk.abs()).double().mean().item(), abs=1.5)
    assert shares[2] == pytest.approx(100 * (half < 1e-3).double().mean().item(), abs=0.06)
    assert main(["forecast", folder, *plan, "--schedule", "cosine", "--warmup", "10"]) == 0
    assert main(["forecast", folder, *plan, "--warmup", "101"]) == 2


def test_trained_runs_lie_where_their_forecast_says():
    """SFT shows what Adam's noise would; OPD and RLVR show more, and less than steps that all go one way.
    The forecast of these is from the base: their anchor's weights, which SFT changed by 1 %, are not kept."""
    data, profile = Path(__file__).parents[2] / "data", get_profile("reference")
    table = read_table(data / "results" / "reference" / "matrices.parquet")
    source = open_source(data / "models" / "base")
    weights = torch.cat([source.read(m.name).flatten() for m in source.matrices() if m.module in MODULES])
    grid = half_ulp_counts(weights)
    for name in ("sft", "opd", "rlvr"):
        run = profile.run(name)
        rows = table[(table["run"] == name) & (table["seed"] == 0)]
        density = at_end(over_matrices(rows, "update_density"))["value"].item()
        shares = visible_shares(*grid, run.learning_rates(), adam_bound(run.betas))
        assert (
            density == pytest.approx(shares["noise"], abs=0.03)
            if name == "sft"
            else density > shares["noise"] + 0.1
        )
        assert density < shares["drift"]


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out", " "]])
def test_an_empty_folder_is_refused(base, arguments, capsys):
    with pytest.raises(SystemExit):
        status(base, base, *arguments)
    assert "it names no folder" in capsys.readouterr().err


def test_what_a_file_names_reaches_a_terminal_as_text(base, tmp_path, capsys):
    evil = "model.layers.0.mlp.up\x1b[2J\nproj.weight"
    ends = [
        checkpoint(tmp_path / f"{n}\x1b[31m", start() | {evil: noise(7) * s})
        for n, s in (("a", 1), ("b", math.nan))
    ]
    assert status(*ends, "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "\x1b" not in text
    assert told.err.count("\n") == 1
    assert "up\\x1b[2J\\nproj" in told.err
    error = CompanionError("x" * 100_000 + "\n")
    assert len(str(error)) < 2000
