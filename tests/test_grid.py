"""From files to tasks: the points of a grid, identities that depend on nothing else, and no file that ends badly."""

import copy
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clever.catalog import Locations
from clever.errors import RequestError
from clever.experiment import find_experiment, folder, read_experiment
from clever.grid import Study, studies
from clever.names import TaskKind
from tests.study import STUDY, changed, expand, ids, use_profile, write

ROOT = Path(__file__).parents[1]


def cells(study: Study) -> list[tuple[str, ...]]:
    return [tuple(point.coordinates[axis] for axis in study.axes) for point in study.points]


def test_points_are_the_product_of_the_axes_in_the_files_order(tmp_path):
    study = expand(tmp_path, STUDY)
    assert study.axes == ("augmentation", "method")
    assert cells(study) == [("baug", "dino"), ("baug", "clever"), ("caug", "dino"), ("caug", "clever")]
    first = {"backbone": "vit_small", "augmentation": "baug", "method": "dino", "seed": "0"}
    assert study.points[0].coordinates == first


def test_axes_of_a_zip_move_in_step_within_the_product(tmp_path):
    text = changed(("  method:", "  zip: {local_crops: [2, 4], local_size: [96, 64]}\n  method:"))
    study = expand(tmp_path, text)
    specs = [point.pretrain.spec for point in study.points]
    found = [(spec.augmentation, spec.local_crops, spec.local_size) for spec in specs]
    assert found[::2] == [("baug", 2, 96), ("baug", 2, 96), ("caug", 2, 96), ("caug", 2, 96)]
    assert found[1::2] == [("baug", 4, 64), ("baug", 4, 64), ("caug", 4, 64), ("caug", 4, 64)]


def test_a_grid_of_zipped_axes_alone(tmp_path):
    text = changed(("  augmentation: [baug, caug]\n  method: [dino, clever]\n",
                    "  zip: {augmentation: [baug, caug], method: [dino, clever]}\n"))  # fmt: skip
    assert cells(expand(tmp_path, text)) == [("baug", "dino"), ("caug", "clever")]


def test_an_experiment_without_a_grid_is_one_point(tmp_path):
    text = changed(
        ("epochs: 500}", "epochs: 500, method: dino, augmentation: baug}"),
        ("grid:\n  augmentation: [baug, caug]\n  method: [dino, clever]\n", ""),
        ("    - {label: CLeVER, method: clever}\n", ""),
        ("{method: clever}, {method: dino}", "{method: dino}, {method: dino}"),
        ("[baug, caug], perturbation", "[baug], perturbation"),
    )
    assert cells(expand(tmp_path, text)) == [()]


def test_every_point_has_a_pre_training_its_probes_and_their_perturbed_scores(tmp_path):
    point = expand(tmp_path, STUDY, seeds="probe=2").points[1]
    kinds = [task.kind for task in point.tasks()]
    assert kinds == [TaskKind.PRETRAIN, TaskKind.PROBE, TaskKind.PROBE, TaskKind.PERTURBED, TaskKind.PERTURBED]
    assert [probe.needs for probe in point.probes] == [(point.pretrain.id,)] * 2
    assert [task.needs for task in point.perturbed] == [(probe.id,) for probe in point.probes]
    assert [probe.spec.seed for probe in point.probes] == [task.spec.seed for task in point.perturbed] == [0, 1]
    assert {task.spec.split_ratio for task in (*point.probes, *point.perturbed)} == {0.8}


def test_probes_alone_where_nothing_is_perturbed(tmp_path):
    text = changed(("{task: perturbed, perturbation: [orig, cj]}", "{task: probe}"))
    assert {task.kind for task in expand(tmp_path, text).tasks()} == {TaskKind.PRETRAIN, TaskKind.PROBE}


def test_a_control_probes_the_untrained_backbone_of_the_first_point(tmp_path, monkeypatch):
    assert expand(tmp_path, STUDY, use_profile(tmp_path, monkeypatch, "title: Own\n")).controls == ()
    study = expand(tmp_path, STUDY, use_profile(tmp_path, monkeypatch, "title: Own\ncontrol: true\n"))
    (control,) = study.controls
    spec = control.probe.spec
    assert (spec.weights, spec.init_seed, spec.split_ratio, control.probe.needs) == ("untrained", 0, None, ())
    assert spec.shape == study.points[0].pretrain.spec.shape
    assert list(study.tasks())[-1] == control.probe
    assert control.label == "Untrained vit_small (control)"


# --- identity ------------------------------------------------------------------------------------------------------


def test_labels_tables_claims_and_shown_perturbations_are_in_no_identity(tmp_path):
    text = changed(
        ("title: Mine", "title: Other\npaper: {table: 3}"),
        ("label: DINO", "label: Vanilla"),
        ("table:\n", "table:\n  metric: top5\n"),
        ("{task: perturbed, perturbation: [orig, cj]}", "{task: perturbed}"),
        ("  bold: {baug: [orig]}\n", ""),
        ("    - {label: CLeVER, method: clever}\n", ""),
        ("id: better", "id: worse"),
    )
    assert ids(expand(tmp_path, text, name="other")) == ids(expand(tmp_path, STUDY))


def test_a_default_that_is_written_out_changes_no_identity(tmp_path):
    text = changed(
        ("epochs: 500", "epochs: 500.0, local_crops: 8, clip: 3, recipe: code, split_ratio: .80, weight_decay: 4e-2"),
        ("evaluate:", "probe: {momentum: 9e-1, weight_decay: -0.0}\nperturbed: {passes: 1}\nevaluate:"),
    )  # fmt: skip
    assert ids(expand(tmp_path, text)) == ids(expand(tmp_path, STUDY))


def test_the_order_of_fields_changes_no_identity_and_that_of_axes_only_the_order(tmp_path):
    text = changed(("dataset: imagenet100, backbone: vit_small", "backbone: vit_small, dataset: imagenet100"))
    assert ids(expand(tmp_path, text)) == ids(expand(tmp_path, STUDY))
    axes = "  augmentation: [baug, caug]\n", "  method: [dino, clever]\n"
    text = changed(("".join(axes), "".join(reversed(axes))))
    assert sorted(ids(expand(tmp_path, text))) == sorted(ids(expand(tmp_path, STUDY)))


def test_where_data_lie_and_what_devices_a_profile_uses_are_in_no_identity(tmp_path, monkeypatch):
    before = ids(expand(tmp_path, STUDY, use_profile(tmp_path, monkeypatch, "title: Own\n")))
    scale = use_profile(tmp_path, monkeypatch, "title: Other\ndevices: {pretrain: all, probe: one}\n", "other")
    locations = Locations((tmp_path,), {"imagenet100": tmp_path, "mine": tmp_path})
    assert ids(expand(tmp_path, STUDY, scale, locations=locations)) == before


def test_seeds_are_in_the_identity_of_what_they_seed(tmp_path):
    one, three = expand(tmp_path, STUDY), expand(tmp_path, STUDY, seeds="pretrain=3,probe=2")
    assert set(ids(one)) < set(ids(three))
    assert len(set(ids(three))) == len(ids(three)) == 4 * 3 * (1 + 2 + 2)


def test_a_change_of_the_pre_training_reaches_everything_below_it(tmp_path):
    before = expand(tmp_path, STUDY)
    after = expand(tmp_path, STUDY, settings=["pretrain.split_ratio=.7"])
    for old, new in zip(before.points, after.points, strict=True):
        same = old.coordinates["method"] == "dino"
        assert [a.id == b.id for a, b in zip(old.tasks(), new.tasks(), strict=True)] == [same] * 3
    deeper = expand(tmp_path, STUDY, settings=["perturbed.passes=2"])
    for old, new in zip(before.points, deeper.points, strict=True):
        assert [a.id == b.id for a, b in zip(old.tasks(), new.tasks(), strict=True)] == [True, True, False]


FAKE_TORCH = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 8)
"""
ALL_IDS = """
import json, sys
from clever.catalog import Locations
from clever.experiment import profiles
from clever.grid import studies
found = {p: [task.id for study in studies(["all"], p, Locations()) for task in study.tasks()] for p in profiles()}
assert not {"torch", "numpy", "pandas", "mlflow", "submitit"} & set(sys.modules)
sys.stdout.write(json.dumps(found))
"""


def test_all_identities_are_the_same_with_cuda_and_without_and_need_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    machines = {
        "gpu": {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))), "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
                "OMP_NUM_THREADS": "96", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8"},
        "login": {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    }  # fmt: skip
    command = [sys.executable, "-c", ALL_IDS]
    running = {
        name: subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        for name, own in machines.items()
    }
    found = {name: json.loads(process.communicate(timeout=120)[0]) for name, process in running.items()}
    assert found["gpu"] == found["login"]
    assert found["gpu"]["paper"] == [key for study in studies(["all"], "paper", Locations()) for key in ids(study)]
    assert not (tmp_path / "imported").exists()


# --- several targets -----------------------------------------------------------------------------------------------


def test_mistakes_of_all_targets_are_reported_together(tmp_path):
    one = write(tmp_path, changed(("epochs: 500", "epochs: 0")), "one")
    other = write(tmp_path, changed(("[baug, caug]\n  method", "[baug, cagu]\n  method")), "other")
    with pytest.raises(RequestError) as refused:
        studies([str(one), "tabel3", str(other)], "paper", Locations())
    one, missing, other = refused.value.messages
    assert "one.yaml:2" in one
    assert "`tabel3`" in missing
    assert "other.yaml:4" in other


def test_a_target_that_is_asked_for_twice_is_one_study():
    assert [study.name for study in studies(["table3", "all", "table3"], "paper", Locations())].count("table3") == 1


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    files = [str(write(tmp_path, STUDY)), str(write(tmp_path / "a", STUDY))]
    with pytest.raises(RequestError, match="another target is called `mine` too; rename the file"):
        studies(files, "paper", Locations())


# --- whatever is in a file ------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    "dino", "clever", "vit_small", "resnet50", "baug", "cj", "full", 0, 1, -1, 3, 0.5, -0.0, 1e300, True, None, "",
    "no", "é", "nan", "inf", [], {}, [1, 2], {"a": 1}, [[0.4, 1.0]], [["dino"], "clever"], "x" * 300, 10**30, "dataset",
    "zip",
]  # fmt: skip
NESTED = [value for value in VALUES if isinstance(value, list | dict)]
KEYS = [
    "dataset", "split_ratio", "product", "zip", "exclude", "[key]", "grid", "epochs", "backbone", "title", "hyper",
    "seed", "", "local_size", "stem", "probe", "perturbed", "subset", "crop_size", "resize", "strict_split", "recipe",
]  # fmt: skip


def places(value: Any, place: tuple = ()) -> list[tuple]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place] * bool(place) + [found for key, item in parts for found in places(item, (*place, key))]


def at(value: Any, place: tuple) -> Any:
    for key in place:
        value = value[key]
    return value


def mutate(dice: random.Random, value: Any) -> None:
    """Remove, replace, move, rename or add something somewhere."""
    *way, key = dice.choice(places(value))
    parent, kind = at(value, tuple(way)), dice.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = copy.deepcopy(dice.choice(VALUES))
    elif kind == 2:
        parent[key] = copy.deepcopy(at(value, dice.choice(places(value))))
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(dice.choice(VALUES)))
    elif kind == 3:
        parent[dice.choice(KEYS)] = parent.pop(key)
    else:
        parent[dice.choice(KEYS)] = copy.deepcopy(dice.choice(VALUES))


def scramble(dice: random.Random, text: str) -> str:
    """Insert, remove, repeat or cut off some characters."""
    marks = [*"{}[]:,-#&*!|>'\"%@`?~<\t\n 0e.é\x00", "\n  ", ": ", "- ", "<<: ", "&a ", "*a", "--- ", "!!str "]
    for _ in range(dice.choice([1, 1, 2, 4])):
        here, there = dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)
        middle = dice.choice([dice.choice(marks), "", text[there : there + 40]])
        text = text[:here] + middle + text[here + (0 if middle else dice.randrange(1, 9)) :]
    return text[: dice.randrange(len(text) + 1)] if dice.random() < 0.1 else text


def outcome(path: Path, dice: random.Random) -> str:
    try:
        studies([str(path)], dice.choice(["paper", "smoke"]), Locations())
    except RequestError as refused:
        for message in refused.messages:
            assert re.fullmatch(r"\S+\.yaml:\d+:\d+: .+", message), message
        return "refused"
    return "expanded"


def test_whatever_is_written_in_a_file_is_expanded_or_refused_at_its_place(tmp_path):
    original = yaml.safe_load((folder() / "table3.yaml").read_text())
    outcomes = []
    for number in range(40):
        dice = random.Random(number)
        value = copy.deepcopy(original)
        if number % 2:
            section, key = dice.choice(["pretrain", "grid"]), dice.choice(["method", "base"])
            value[section][key] = copy.deepcopy(dice.choice(NESTED))
        for _ in range(dice.choice([1, 1, 2, 3])):
            mutate(dice, value)
        # JSON is YAML, and has no aliases
        outcomes.append(outcome(write(tmp_path, json.dumps(value, ensure_ascii=False)), dice))
    assert set(outcomes) == {"expanded", "refused"}


def test_whatever_happens_to_the_text_of_a_file_it_is_expanded_or_refused_at_its_place(tmp_path):
    original = (folder() / "table3.yaml").read_text()
    outcomes = []
    for number in range(40):
        dice = random.Random(number)
        outcomes.append(outcome(write(tmp_path, scramble(dice, original)), dice))
    assert set(outcomes) == {"expanded", "refused"}


def test_the_papers_table_is_what_the_paper_says():
    experiment = read_experiment(find_experiment("table3")[1])
    assert (experiment.paper.table, experiment.table.group, experiment.table.metric) == (3, "augmentation", "top1")
    assert [row.label for row in experiment.table.rows] == ["DINO", "CLeVER-IR", "CLeVER"]
    (study,) = studies(["table3"], "paper", Locations())
    specs = [point.pretrain.spec for point in study.points]
    sizes = {(s.epochs, s.global_batch, s.global_size, s.local_size, s.local_crops) for s in specs}
    assert {(s.dataset, s.backbone) for s in specs} == {("imagenet100", "vit_small")}
    assert sizes == {(500, 512, 224, 96, 8)}
    grid = [(augmentation, method) for augmentation in ("baug", "caug", "caug_plus") for method in ("dino", "clever")]
    assert [(s.augmentation, s.method) for s in specs] == grid
