"""Fine-tuning by processes on two nodes, and what reads from it in the same job, on a real cluster."""

import pytest

from clever.files import read_json
from clever.names import TaskKind
from tests.slurm.clever_runs import User
from tests.slurm.cluster import Cluster

EXPERIMENT = """\
title: A small study
pretrain: {dataset: imagenet100, backbone: vit_small, augmentation: baug, epochs: 500}
grid:
  method: [dino]
evaluate:
  - {task: rotation, name: turned, fields: {task: invariance}}
table:
  rows: [{label: DINO, method: dino}]
  columns:
    - {label: Orig., evaluation: turned, rotated: orig, metric: top1}
"""


@pytest.fixture
def user(cluster: Cluster, tmp_path):
    with User(tmp_path, cluster) as one:
        yield one


def test_two_nodes_fine_tune_together_and_one_of_their_processes_tests_the_outcome(user):
    user.settings("[cluster.finetune]", "nodes = 2", "gpus_per_node = 1", max_gpus=2)
    path = user.folder / "study.yaml"
    path.write_text(EXPERIMENT)
    folders = {task.kind: user.store / task.folder for task in user.tasks(str(path))}
    assert set(folders) >= {TaskKind.PRETRAIN, TaskKind.FINETUNE, TaskKind.ROTATION}
    user.clever("run", str(path))
    user.wait_done(*folders.values())
    devices = {kind: read_json(folder / "provenance.json")["devices"] for kind, folder in folders.items()}
    assert devices[TaskKind.FINETUNE] == 2
    assert devices[TaskKind.ROTATION] == 1
    tuned, turned = (read_json(folders[kind] / "result.json") for kind in (TaskKind.FINETUNE, TaskKind.ROTATION))
    assert turned["scores"]["full"]["orig"]["top1"] == tuned["scores"]["full"]["top1"]
    assert len((folders[TaskKind.FINETUNE] / "metrics.jsonl").read_text().splitlines()) == tuned["epochs"]
