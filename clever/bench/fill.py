"""Made-up results for stores of which only the time to read them is of interest."""

from typing import Any

from clever.names import OF_SALIENCY, OF_VIDEO, Factor, Perturbation, Representation, Rotated, TaskKind
from clever.spec import Task


def made_up_result(task: Task) -> dict[str, Any]:
    """A result in the shape of a finished task's."""
    score = {"top1": 50.0, "top5": 90.0, "std": None}
    heads = {head: {"top1": 50.0, "top5": 90.0, "best_top1": 50.0, "best_epoch": 1} for head in Representation}
    turned = {name: score for name in Rotated} if getattr(task.spec, "task", "") == "invariance" else heads["full"]
    results = {
        TaskKind.PRETRAIN: {"loss": 1.0},
        TaskKind.PROBE: {"scores": heads, "images": 5000, "epochs": 1},
        TaskKind.PERTURBED: {
            "scores": {head: {name: score for name in Perturbation} for head in Representation},
            "images": 5000,
            "passes": 1,
        },
        TaskKind.FINETUNE: {"scores": {"full": heads["full"]}, "images": 5000, "epochs": 1},
        TaskKind.ROTATION: {"scores": {"full": turned}, "images": 5000},
        TaskKind.VIDEO: {"scores": {name: 0.5 for name in OF_VIDEO}, "errors": {name: 0.01 for name in OF_VIDEO}},
        TaskKind.SALIENCY: {"scores": {name: 0.5 for name in OF_SALIENCY}, "errors": {}, "images": 1000},
        TaskKind.FACTORS: {
            "scores": {factor: {head: {"r2": 0.5, "as_few": 0.5} for head in Representation} for factor in Factor},
            "change": {
                factor: {head: {"between_images": 0.5, "relative": 0.5} for head in Representation} for factor in Factor
            },
            "images": 5000,
        },
    }
    return results[task.kind]
