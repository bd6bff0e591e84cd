"""Two checkpoints pair up by name and shape, and what does not is told apart."""

from pathlib import Path

import pytest
import torch
from stored import Q, all_matrices, assert_same
from trajectories import tiny_weights

from paper_lib.compare.pairing import pair_up
from paper_lib.compare.sources import open_source
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import MODULES
from paper_lib.training.checkpoints import save_checkpoint


def test_checkpoints_of_one_model_pair_up_whatever_wraps_their_names(tmp_path: Path) -> None:
    weights = tiny_weights()
    save_checkpoint(weights, tmp_path / "a.safetensors")
    renamed = {
        n.replace("model.", "base_model.model.model.language_model.", 1): w for n, w in weights.items()
    }
    save_checkpoint(renamed, tmp_path / "b.safetensors")
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    save_checkpoint(bare, tmp_path / "c.safetensors")
    first = open_source(tmp_path / "a.safetensors")
    for other in ("b.safetensors", "c.safetensors"):
        matched, left_out = pair_up(first, open_source(tmp_path / other))
        assert matched == first.matrices()
        skipped = {f"model.layers.{i}.self_attn.q_norm.weight": "a vector" for i in (0, 1)}
        assert {kind: names for kind, names in left_out.items() if names} == {"skipped": skipped}
        assert_same(all_matrices(first), all_matrices(open_source(tmp_path / other)))


def test_what_does_not_pair_is_told_apart(tmp_path: Path) -> None:
    weights = tiny_weights(layers=1)
    save_checkpoint(weights | {"model.only.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    changed = weights | {Q: torch.ones(8, 4), "score.weight": torch.ones(1, 8)}
    save_checkpoint(changed, tmp_path / "b.safetensors")
    base, tuned = (open_source(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    matched, left_out = pair_up(base, tuned)
    assert list(left_out["only in the base"]) == ["model.only.weight"]
    assert list(left_out["only in the fine-tuned"]) == ["score.weight"]
    assert left_out["mismatched"] == {Q: "8 × 8 in the base, 8 × 4 in b.safetensors"}
    assert len(matched) == len(MODULES)
    save_checkpoint({"other.weight": torch.ones(3, 3)}, tmp_path / "c.safetensors")
    with pytest.raises(CompanionError, match=r"a\.safetensors and c\.safetensors have no matrix of the same"):
        pair_up(base, open_source(tmp_path / "c.safetensors"))
    save_checkpoint({"other.weight": torch.ones(3, 2)}, tmp_path / "d.safetensors")
    with pytest.raises(
        CompanionError, match=r"\(other\.weight is 3 × 3 in the base, 3 × 2 in d\.safetensors\)"
    ):
        pair_up(*(open_source(tmp_path / name) for name in ("c.safetensors", "d.safetensors")))
