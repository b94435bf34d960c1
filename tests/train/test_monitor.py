"""A pre-training that is watched is, to the last bit, the one that is not; and its log has one entry a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clever.catalog import Locations
from clever.data.datasets import open_images
from clever.evaluate.neighbours import Monitor
from clever.run.tasks import Interrupted, Work, run
from clever.settings import MonitorSettings, Settings
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskFolder, read_metrics
from clever.train import pretrain
from clever.train.launch import Seat, launch
from tests.train.small import SmallLoader, SmallMethod, nano

SPEC = nano("resnet_nano", "dino", {"head_batch_norm": True}, epochs=3, subset=32)  # 4 steps an epoch, 12 in all
NAMES = {"knn/top1", "retrieval/recall1", "retrieval/map"}


class Watched:
    """The real loop over the small method, with a monitor that keeps what it is given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.seen: list[tuple[Any, int]] = []
        monkeypatch.setattr(pretrain, "PretrainLoader", SmallLoader)
        monkeypatch.setattr(pretrain, "build_method", self._build)

    def _build(self, spec: PretrainSpec) -> SmallMethod:
        self.built = SmallMethod(spec)
        return self.built

    def __call__(self, numbers: dict[str, float], waits: Callable[[], None] = list, **options: Any) -> None:
        def monitor(backbone: Any, epoch: int) -> dict[str, float]:
            self.seen.append((backbone, epoch))
            waits()
            return numbers

        def log(step: int, values: dict[str, float]) -> None:
            self.logged.append((step, values))

        pretrain.pretrain(nano(epochs=3), range(100), self.folder, log, device="cpu", monitor=monitor, **options)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_the_teacher_is_watched_at_the_end_of_every_epoch(watched: Watched) -> None:
    watched({"knn/top1": 50.0})
    assert [epoch for _, epoch in watched.seen] == [1, 2, 3]
    assert all(backbone is watched.built.teacher for backbone, _ in watched.seen)


def test_its_numbers_stand_in_the_entry_of_the_step_that_ended_the_epoch(watched: Watched) -> None:
    watched({"knn/top1": 50.0})
    assert [step for step, _ in watched.logged] == [1, 10, 12, 20, 24, 30, 36], "12 steps an epoch"
    entries = dict(watched.logged)
    assert entries[12] == entries[24] == {"knn/top1": 50.0}
    assert entries[36]["knn/top1"] == 50 and "loss" in entries[36]
    assert not any("knn/top1" in entries[step] for step in (1, 10, 20, 30))


def test_nothing_is_logged_where_it_has_nothing_to_say(watched: Watched) -> None:
    watched({})
    assert [step for step, _ in watched.logged] == [1, 10, 20, 30, 36]


def test_the_time_that_it_takes_is_not_the_speed_of_the_training(watched: Watched, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: now[0])
    speeds: dict[int, float] = {}

    def a_second_later(values: dict[str, Any]) -> None:
        speeds[values["step"]] = values["images_per_second"]
        now[0] += 1

    watched({}, progress=a_second_later, waits=lambda: now.__setitem__(0, now[0] + 500))
    assert speeds[20] == speeds[30] == 8, "images a second, whatever the monitor took after steps 12 and 24"


def train(folder: Path, monitor: bool, seat: Seat | None = None) -> dict[int, dict[str, float]]:
    """All that was logged of SPEC; by rank 0."""
    folder.mkdir(parents=True, exist_ok=True)
    logged: dict[int, dict[str, float]] = {}
    images = open_images("digits", "train", Locations(), image_size=SPEC.image_size, subset=SPEC.subset)
    place = {"rank": seat.rank, "world": seat.world} if seat else {}
    watch = Monitor.open(SPEC, Locations(), 30, every_epochs=2, neighbours=5, device="cpu")
    chosen = watch if monitor and not (seat and seat.rank) else None
    pretrain.pretrain(SPEC, images, folder, logged.__setitem__, device="cpu", monitor=chosen, **place)
    return logged


def without(entries: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """What an unwatched training would have logged."""
    kept = {step: {k: v for k, v in values.items() if k not in NAMES} for step, values in entries.items()}
    return {step: values for step, values in kept.items() if values}


def assert_watching_changed_nothing(folder: Path, watched: dict, plain: dict) -> None:
    assert without(watched) == plain
    assert (folder / "watched" / "weights.pt").read_bytes() == (folder / "plain" / "weights.pt").read_bytes()
    assert [step for step, values in watched.items() if NAMES <= values.keys()] == [8, 12], "epoch 2 and the last"


def test_a_watched_training_is_to_the_last_bit_the_one_that_is_not(tmp_path: Path) -> None:
    watched, plain = (train(tmp_path / name, name == "watched") for name in ("watched", "plain"))
    assert_watching_changed_nothing(tmp_path, watched, plain)


def train_both(seat: Seat, folder: Path) -> list[dict[int, dict[str, float]]]:
    return [train(folder / name, name == "watched", seat) for name in ("watched", "plain")]


@pytest.mark.slow
def test_two_ranks_train_the_same_while_one_of_them_watches(tmp_path: Path) -> None:
    watched, plain = launch(train_both, (tmp_path,), world=2, device="cpu")
    assert_watching_changed_nothing(tmp_path, watched, plain)


def do(root: Path, every_epochs: int, should_stop=lambda: False) -> Path:
    store, task = Store(root), Task(spec=SPEC)
    settings = Settings(store=root, monitor=MonitorSettings(every_epochs=every_epochs, neighbours=5, images=30))
    folder = store.prepare(task)
    run(Work(TaskFolder(folder, task), settings, "cpu", 1, lambda values: None), should_stop)
    return folder


def test_the_users_settings_turn_it_on_and_change_no_task(tmp_path: Path) -> None:
    plain, watched = do(tmp_path / "plain", 0), do(tmp_path / "watched", 2)
    assert plain.name == watched.name, "it is no part of the identity"
    rows = [read_metrics(folder / "metrics.jsonl") for folder in (watched, plain)]
    entries = [{row["step"]: row["values"] for row in each} for each in rows]
    assert without(entries[0]) == entries[1] and [s for s, v in entries[0].items() if NAMES <= v.keys()] == [8, 12]
    assert (plain / "weights.pt").read_bytes() == (watched / "weights.pt").read_bytes()


@pytest.mark.parametrize("stopped_at", [8, 9])
def test_a_resumed_training_logs_what_an_unbroken_one_does_and_nothing_twice(tmp_path: Path, stopped_at: int) -> None:
    asked = iter([False] * (stopped_at - 1) + [True] * 99)
    with pytest.raises(Interrupted, match=f"step {stopped_at}"):
        do(tmp_path / "broken", 2, lambda: next(asked))
    broken, whole = do(tmp_path / "broken", 2), do(tmp_path / "whole", 2)
    rows = [[(row["step"], row["values"]) for row in read_metrics(each / "metrics.jsonl")] for each in (broken, whole)]
    assert rows[0] == rows[1]
    assert (broken / "weights.pt").read_bytes() == (whole / "weights.pt").read_bytes()


def test_what_cannot_be_watched_ends_the_task_before_it_begins(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path, monitor=MonitorSettings(every_epochs=1, images=2))
    store, task = Store(tmp_path), Task(spec=SPEC)
    work = Work(TaskFolder(store.prepare(task), task), settings, "cpu", 1, lambda values: None)
    with pytest.raises(ValueError, match="no two of its 2 test images are of one class"):
        run(work, lambda: False)
    assert not (work.found.path / "metrics.jsonl").exists()
