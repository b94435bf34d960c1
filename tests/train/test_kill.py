"""A training that is killed at any moment ends, when it is started again, as if nothing had happened."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.train import nano_run

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds


def newest_step(folder: Path) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in folder.glob("checkpoints/step-*.pt")), default=0)


def run_and_kill(folder: Path, at_step: int, delay: float) -> None:
    """Start it as a process of its own and SIGKILL it ``delay`` seconds after it saved ``at_step``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "tests.train.nano_run", folder], env=environment, cwd=ROOT)
    deadline = time.monotonic() + PATIENCE
    try:
        while newest_step(folder) < at_step:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()


def outcome(folder: Path) -> tuple[dict[int, dict[str, float]], dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return dict(json.loads(line) for line in lines), torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.slow
def test_killed_three_times_it_ends_bit_for_bit_as_an_unbroken_run(tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    nano_run.train(unbroken, checkpoint_minutes=60.0)
    for at_step, delay in ((1, 0.0), (9, 0.004), (23, 0.009)):
        run_and_kill(killed, at_step, delay)
        assert at_step <= newest_step(killed) < 40
    nano_run.train(killed)
    metrics, weights = outcome(killed)
    expected_metrics, expected_weights = outcome(unbroken)
    assert metrics == expected_metrics
    assert list(expected_metrics) == [1, 10, 20, 30, 40]
    assert weights["shape"] == expected_weights["shape"]
    assert weights["backbone"].keys() == expected_weights["backbone"].keys()
    for name, value in expected_weights["backbone"].items():
        assert torch.equal(weights["backbone"][name], value), name
