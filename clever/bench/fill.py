"""Made-up results for stores of which only the time to read them is of interest."""

from typing import Any

from clever.names import Perturbation, Representation, TaskKind


def made_up_result(kind: TaskKind) -> dict[str, Any]:
    """A result in the shape of a finished task's."""
    score = {"top1": 50.0, "top5": 90.0, "std": None}
    heads = {head: {"top1": 50.0, "top5": 90.0, "best_top1": 50.0, "best_epoch": 1} for head in Representation}
    results = {
        TaskKind.PRETRAIN: {"loss": 1.0},
        TaskKind.PROBE: {"scores": heads, "images": 5000, "epochs": 1},
        TaskKind.PERTURBED: {
            "scores": {head: {name: score for name in Perturbation} for head in Representation},
            "images": 5000,
            "passes": 1,
        },
    }
    return results[kind]
