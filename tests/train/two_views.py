"""The methods of two views, and CLeVER over each base, at their smallest: for the tests of the training loop."""

from typing import Any

from clever.names import Method
from clever.recipes import recipe_of
from clever.spec import PretrainSpec

HEADS = {
    "head_hidden": 24, "head_outputs": 16, "predictor_hidden": 8, "projection_dim": 12, "queue": 40, "ema": 0.9,
    "warmup_epochs": 0.5,
}  # fmt: skip
NAMES = ("simsiam", "ddcl", "ddcl_preg", "simclr", "debiased", "byol", "moco_v1", "moco_v2", "refosnet")
OVER = tuple(f"clever over {base}" for base in ("simsiam", "simclr", "byol", "moco_v2"))
ALL = NAMES + OVER


def two_views(name: str, hyper: dict | None = None, **values: Any) -> PretrainSpec:
    """Digits at 8 px through a nano ViT; ``name`` is one of ``ALL``."""
    method, _, base = name.partition(" over ")
    own = {"base": base} if base else {}
    known = recipe_of(Method(method), own).model_fields
    heads = {key: value for key, value in HEADS.items() if key in known}
    given = {
        "dataset": "digits", "backbone": "vit_nano", "patch_size": 4, "stem": "small", "augmentation": "baug",
        "epochs": 2, "global_batch": 16, "subset": 160, "image_size": 8, "global_size": 8, "global_scale": (0.7, 1.0),
        "pipeline": "batched", **values,
    }  # fmt: skip
    return PretrainSpec(method=method, hyper={**own, **heads, **(hyper or {})}, **given)
