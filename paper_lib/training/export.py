"""Trained students for use elsewhere: a snapshot of a run as a Hugging Face directory."""

import os
from pathlib import Path

import torch

from paper_lib.ground.errors import CompanionError
from paper_lib.study.profiles import get_profile
from paper_lib.training.checkpoints import open_trajectory
from paper_lib.training.models import save_model
from paper_lib.training.starts import Study, snapshot_model
from paper_lib.training.study import selected

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def export_run(
    profile_name: str,
    run_name: str,
    *,
    destination: Path | str,
    data_dir: Path | str = "data",
    seed: int = 0,
    step: int | None = None,
    dtype: str = "bfloat16",
) -> Path:
    """Write the snapshot after `step` steps (the last where None) as a model that transformers loads.

    Config and tokenizer are those of the base that the run was trained from; weights are rounded to `dtype`,
    as the anchor is before others start from it, or with float32 left as trained. Returns the destination.
    Raises CompanionError for an unknown name, where the run, the step or the base is missing or does not fit,
    and where the destination is not empty.
    """
    study = Study(profile=get_profile(profile_name), data_dir=Path(data_dir))
    run = selected(study.profile, [run_name], [seed])[0][0]
    destination = Path(os.path.abspath(destination))  # which "." has a name, too
    if dtype not in DTYPES:
        raise CompanionError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CompanionError(f"{destination} is not an empty folder: name another, nothing is overwritten")
    trajectory = open_trajectory(study.directory(run, seed))
    step = trajectory.steps[-1] if step is None else step
    if step not in trajectory.steps:
        steps = ", ".join(str(known) for known in trajectory.steps)
        raise CompanionError(f"{trajectory.directory} has no snapshot after {step} steps; it has {steps}")
    model, tokenizer = snapshot_model(study.models_folder, trajectory, step)
    recipe = {"run": trajectory.config, "fingerprint": trajectory.fingerprint, "step": step}
    card = f"""# {run_name}, step {step}

The student of the run `{run_name}` after {step} optimizer steps, in {dtype}. `recipe.json` has the run's
settings. Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.
"""
    model.to(DTYPES[dtype])  # config.json names the dtype of the model
    save_model(model, tokenizer, destination, card=card, recipe=recipe, dtype=DTYPES[dtype])
    return destination
