"""Embeddings stand by themselves: their rows of tokens that never occurred would decide any mean."""

from pathlib import Path

import torch

from paper_lib.compare.answer import outside_table
from paper_lib.compare.run import compare
from paper_lib.compare.summary import read_comparison
from paper_lib.training.checkpoints import save_checkpoint

EMBED, Q = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"


def test_untouched_rows_are_counted_and_no_mean_holds_both(tmp_path: Path) -> None:
    """Of 40 tokens 10 occurred; the others shrank by weight decay."""
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(rows, 32, generator=generator) for name, rows in ((EMBED, 40), (Q, 32))}
    end = {name: w + 0.1 * torch.randn(w.shape, generator=generator) for name, w in start.items()}
    end[EMBED][10:] = 0.999 * start[EMBED][10:]
    for folder, weights in (("a", start), ("b", end)):
        save_checkpoint(weights, tmp_path / folder / "model.safetensors")
    for modules, inside in (("q,embed", ["q"]), ("embed", ["embed"])):
        out = tmp_path / modules
        compare(tmp_path / "a", tmp_path / "b", out, modules=modules)
        found = read_comparison(out)
        assert list(found.matrices["module"].unique()) == inside
        (row,) = outside_table(found).to_dict("records")
        touched = [w[EMBED][:10].bfloat16() for w in (start, end)]
        assert row["rows untouched"] == "30"
        assert row["in the other rows"] == f"{100 * (touched[0] == touched[1]).double().mean():.3g} %"
