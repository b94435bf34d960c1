"""A real training of the smallest kind that saves after every step: `python -m tests.train.nano_run FOLDER`."""

import json
import sys
from pathlib import Path

from clever.catalog import Locations
from clever.data.datasets import open_images
from clever.train.pretrain import pretrain
from tests.train.small import nano

SPEC = nano(epochs=4)  # 40 steps


def train(folder: Path, checkpoint_minutes: float = 0.0) -> None:
    """Train to the end, or go on; every logged step becomes a line of ``folder/metrics.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    images = open_images(SPEC.dataset, "train", Locations(), image_size=SPEC.image_size, subset=SPEC.subset)
    with (folder / "metrics.jsonl").open("a") as lines:

        def log(step: int, metrics: dict[str, float]) -> None:
            lines.write(json.dumps([step, metrics]) + "\n")
            lines.flush()

        pretrain(SPEC, images, folder, log, device="cpu", checkpoint_minutes=checkpoint_minutes)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
