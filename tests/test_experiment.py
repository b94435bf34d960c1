"""Experiment files and profiles: found by name or path, and every mistake named where it stands."""

import json

import pytest

from clever import experiment
from clever.catalog import Locations
from clever.errors import RequestError
from clever.experiment import find_experiment, open_profile, read_experiment
from clever.grid import studies
from clever.names import Backbone, Perturbation
from clever.spec import Task
from tests.study import STUDY, changed, expand, mistakes, use_profile, write


def test_a_built_in_experiment_is_found_by_its_name():
    name, document = find_experiment("table3")
    assert name == "table3"
    assert read_experiment(document).paper.table == 3


def test_every_built_in_experiment_can_be_expanded_in_every_profile():
    assert {"smoke", "tiny", "cifar10", "imagenette", "paper"} <= set(experiment.profiles())
    for profile in experiment.profiles():
        assert len(studies(["all"], profile, Locations())) >= len(experiment.experiments())


def test_what_a_task_of_any_experiment_writes_of_itself_is_read_as_the_same_task():
    """A field that is left out of a specification's dump must come back as it was, or no finished task is found again."""
    expanded = [study for name in experiment.profiles() for study in studies(["all"], name, Locations())]
    tasks = {task.id: task for study in expanded for task in study.tasks()}
    assert len(tasks) > 1000
    for id, task in tasks.items():
        assert Task.from_document(json.loads(json.dumps(task.document))).id == id, task.spec


def test_ddcl_warms_up_before_the_epochs_of_the_paper_and_computes_in_full_precision():
    (table1,) = studies(["table1"], "paper", Locations())
    for point in table1.points:
        spec = point.pretrain.spec
        assert (spec.epochs, spec.all_epochs, spec.milestones[0]) == (200, 230, 10)
        assert (spec.hyper.warmup_epochs, spec.precision) == (30, "fp32")


def test_anyones_file_works_like_a_built_in_one(tmp_path):
    name, document = find_experiment(str(write(tmp_path, STUDY, "my_study")))
    assert name == "my_study"
    assert read_experiment(document).title == "Mine"
    assert read_experiment(document).evaluate[0].perturbation == [Perturbation.ORIG, Perturbation.CJ]


def test_a_file_of_any_name_is_taken_where_it_exists(tmp_path):
    path = tmp_path / "study"
    path.write_text(STUDY)
    assert find_experiment(str(path))[0] == "study"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("tabel3", r"`tabel3`: no such experiment; did you mean `table3`\? \(.*all\); or give the path of a file"),
        ("none.yaml", r"none\.yaml: there is no such file"),
        ("x" * 5000, "no such experiment"),
        ("a\0b", "no such experiment"),
        ("", "no such experiment"),
        ("/", "no such experiment"),
    ],
)
def test_an_unknown_target_is_refused(target, words):
    with pytest.raises(RequestError, match=words):
        find_experiment(target)


def test_an_unknown_profile_is_refused():
    with pytest.raises(RequestError, match=r"`smok`: no such profile; did you mean `smoke`\?"):
        open_profile("smok")


def test_all_mistakes_of_a_file_are_reported_at_once_each_at_its_place(tmp_path):
    text = changed(
        ("title: Mine\n", "titel: Mine\n"),
        ("backbone: vit_small, epochs: 500", "backbone: vit_smal, epochs: many, batch: 5"),
        ("[baug, caug]\n  method", "[baug, cagu]\n  method"),
        ("task: perturbed, perturbation: [orig, cj]", "task: pertrubed, perturbation: [orig, jc]"),
        ("  group: augmentation", "  group: augmentatoin"),
        ("{label: DINO, method: dino}", "{label: DINO, metod: dino}"),
    )
    found = mistakes(tmp_path, text)
    assert found == [
        "mine.yaml:2:34: `vit_smal`: no such backbone; did you mean `vit_small`? "
        f"(allowed: {', '.join(Backbone)})",
        "mine.yaml:2:54: pretrain.epochs: Input should be a valid integer, unable to parse string as an integer "
        "(given: 'many')",
        "mine.yaml:2:68: unknown field `pretrain.batch`; did you mean `global_batch`?",
        "mine.yaml:4:24: `cagu`: no such augmentation; did you mean `caug`? (allowed: baug, caug, caug_plus)",
        "mine.yaml:1:1: `title` is missing",
        "mine.yaml:7:6: `pertrubed`: no such task; did you mean `perturbed`? "
        "(allowed: pretrain, probe, perturbed, finetune, rotation, video, saliency, factors)",
        "mine.yaml:7:44: `jc`: no such perturbation; did you mean `cj`? (allowed: orig, cj, cj_flip, cj_ro, cj_ro_et)",
        "mine.yaml:9:3: `augmentatoin`: no such group; did you mean `augmentation`? "
        "(allowed: augmentation, backbone, method, base, recipe)",
        "mine.yaml:11:21: unknown field `table.rows.0.metod`; did you mean `method`? "
        "(allowed: method, backbone, augmentation, representation, perturbation, evaluation, rotated, factor, at, label, epoch, metric, baseline, printed_as)",
        "mine.yaml:1:1: unknown field `titel`; did you mean `title`? "
        "(allowed: title, paper, pretrain, probe, perturbed, finetune, rotation, video, saliency, factors, grid, seeds, evaluate, table, claims)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "mine.yaml:1:1: the file: Input should be `field: value` pairs (given: [1])"),
        ("hello\n", "mine.yaml:1:1: the file: Input should be `field: value` pairs (given: 'hello')"),
        ("null\n", "mine.yaml:1:1: the file: Input should be `field: value` pairs (given: None)"),
        (b"title: \xff\n", "mine.yaml:1:8: cannot be read: it is not UTF-8 text"),
        ("title: [", "mine.yaml:1:9: not valid YAML: while parsing a flow node, expected the node content"),
    ],
)
def test_what_is_no_experiment_at_all_is_one_message(tmp_path, text, message):
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(message)


def test_an_empty_file_lacks_what_a_file_must_have(tmp_path):
    fields = ("title", "pretrain", "evaluate", "table")
    assert mistakes(tmp_path, "") == [f"mine.yaml:1:1: `{field}` is missing" for field in fields]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("grid:\n", "seeds: 3\ngrid:\n", "3:1: seeds: Input should be `field: value` pairs (given: 3)"),
        ("grid:\n", "seeds: {pretrain: 0}\ngrid:\n", "3:9: seeds.pretrain: Input should be greater than or equal to 1"),
        ("{label: DINO, method: dino}", "{method: dino}", "11:7: `table.rows.0.label` is missing"),
        ("{label: DINO, method: dino}", "dino", "11:7: table.rows.0: Input should be `field: value` pairs (given: '"),
        ("{method: dino}]", "{method: dino}, {method: dino}]", "18:5: claims.0.cells: List should have at most 2"),
        ("    each: {aug", "    relation: less\n    each: {aug", "19:5: `less`: no such relation (allowed: greater, greater_on_average, falls, status)"),
        ("    each: {aug", "    relation: greater_on_average\n    # {aug", "15:5: claims.0: relation `greater_on_average` needs `each`"),
        ("each: {aug", "each: {pertubation: [], aug", "19:12: `pertubation`: no such coordinate; did you mean `pertur"),
        ("{baug: [orig]}", "{baug: [ogir]}", "13:17: `ogir`: no such perturbation; did you mean `orig`?"),
        ("table:\n", "table:\n  columns: method\n", "9:3: table.columns: expected `perturbation`, or a list of columns"),
        ("title: Mine", "title: {a: " + "x" * 200 + "}", "1:1: title: Input should be a valid string (given: {'a': "),
        ("title: Mine", "title: Mine\n'[key]': 1\nproduct: 2", "2:1: unknown field `[key]`"),
    ],
)
def test_a_mistake_is_named_where_it_stands(tmp_path, old, new, message):
    found = mistakes(tmp_path, changed((old, new)))
    assert found[0].startswith(f"mine.yaml:{message}"), found
    assert all(len(one) < 500 for one in found)


def test_a_profile_can_override_neither_grid_nor_table_nor_claims(tmp_path, monkeypatch):
    for word in ("grid", "table", "claims", "seeds", "evaluate"):
        name = use_profile(tmp_path, monkeypatch, f"title: Own\n{word}: {{}}\n")
        with pytest.raises(RequestError, match=rf"own\.yaml:2:1: unknown field `{word}`"):
            expand(tmp_path, STUDY, name)


def test_a_profile_with_mistakes_is_named_with_their_places(tmp_path, monkeypatch):
    name = use_profile(tmp_path, monkeypatch, "title: Own\nbackbones: {vit_smal: vit_nano}\ndevices: {pretrain: two}\n")
    with pytest.raises(RequestError) as refused:
        open_profile(name)
    found = [message.rpartition("/")[2] for message in refused.value.messages]
    assert found[0].startswith("own.yaml:2:13: `vit_smal`: no such backbone; did you mean `vit_small`?")
    assert found[1].startswith("own.yaml:3:11: `two`: no such pretrain (allowed: one, all)")
