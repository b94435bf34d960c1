"""`clever eval` on a real Slurm: the checkpoint is brought in at once, its probe and scores are jobs."""

import torch

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.names import Backbone
from tests.slurm.clever_runs import User

SHAPE = BackboneShape(name=Backbone.VIT_NANO, image_size=16, patch_size=4)


def test_the_scores_of_a_checkpoint_are_made_by_jobs(cluster, tmp_path):
    torch.save(build_backbone(SHAPE).state_dict(), tmp_path / "weights.pth")
    with User(tmp_path, cluster) as user:
        eval_ = ("eval", str(tmp_path / "weights.pth"), "--backbone", "vit_nano", "--set", "probe.epochs=1", "--json")
        answer = user.clever(*eval_, "--wait")
        assert "the same `clever eval` again" not in answer.err
        assert {task["kind"]: task["state"] for task in answer.json["tasks"]} == {
            "imported": "done", "probe": "done", "perturbed": "done",
        }  # fmt: skip
        numbers = len(user.jobs())
        assert numbers and user.clever(*eval_, "--executor", "local").json["tables"] == answer.json["tables"]
        assert len(user.jobs()) == numbers
