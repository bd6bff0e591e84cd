"""Other weights for the same function: attention heads rotated and permuted (Zhu et al. 2025, Gate II).

A head's values reach the output only through its columns of W_o: for any orthogonal R, W_v → R W_v with
W_o → W_o Rᵀ changes no logit, and neither does another order of the heads. Such a change moves the principal
directions of W_0 and the weights that are small in it, and nothing else; whatever training owes to them must
follow. Under grouped-query attention the query heads of a group share one key and value head, hence one R,
and a group moves as a whole.
"""

import torch
from torch import Generator, Tensor

State = dict[str, Tensor]


def random_orthogonal(size: int, generator: Generator) -> Tensor:
    """Uniform (Haar) on the orthogonal group: Q of a Gaussian matrix's QR with diag(R) > 0 (Mezzadri 2007).

    Returns (size, size), float64; Q Qᵀ = I to 1e-14. Without the sign, LAPACK's convention would bias Q.
    """
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def random_change(heads: int, kv_heads: int, head_dim: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A uniform order of the groups, a uniform order within each, and a uniform rotation for each.

    Returns order (heads,), a permutation that maps groups onto groups: new query head i is old head order[i];
    and R (kv_heads, d, d), float64, orthogonal, by the new place of the key and value head.
    """
    group = heads // kv_heads
    places = torch.randperm(kv_heads, generator=generator)
    order = [int(p) * group + torch.randperm(group, generator=generator) for p in places]
    rotations = [random_orthogonal(head_dim, generator) for _ in places]
    return torch.cat(order), torch.stack(rotations)


def change_heads(state: State, layer: int, order: Tensor, rotations: Tensor) -> State:
    """The state dict with the heads of one layer changed, in float64 and back; all else is the same tensors.

    order, rotations: as of `random_change`. Names are those of Qwen3 and Llama checkpoints:
    model.layers.{layer}.self_attn.{q,k,v,o}_proj.weight.
    """
    names = {m: f"model.layers.{layer}.self_attn.{m}_proj.weight" for m in "qkvo"}
    heads, kv_heads, size = len(order), *rotations.shape[:2]
    group = heads // kv_heads
    kv_order = order[::group] // group  # new key and value head j is old head kv_order[j]
    new = {}
    for module, number, places in (("q", heads, order), ("k", kv_heads, kv_order)):
        weight = state[names[module]]
        new[names[module]] = weight.view(number, size, -1)[places].reshape(weight.shape)
    value, output = state[names["v"]], state[names["o"]]
    rotated = rotations @ value.double().view(kv_heads, size, -1)[kv_order]
    new[names["v"]] = rotated.reshape(value.shape).to(value.dtype)
    columns = output.double().view(-1, heads, size)[:, order]
    columns = torch.einsum("nhd,hed->nhe", columns, rotations.repeat_interleave(group, 0))
    new[names["o"]] = columns.reshape(output.shape).to(output.dtype)
    return state | new
