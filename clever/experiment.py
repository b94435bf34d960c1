"""Experiment files and profiles: their models, and reading them with every mistake reported where it stands."""

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from clever.document import Document, Place, read
from clever.errors import RequestError
from clever.names import (
    MEASURED_BY,
    Augmentation,
    Backbone,
    Factor,
    Method,
    Metric,
    Perturbation,
    Projection,
    Representation,
    Rotated,
    TaskKind,
    nearest,
    unknown,
)
from clever.recipes import Frozen

DATASETS = {TaskKind.VIDEO: "davis2017", TaskKind.SALIENCY: "ecssd"}
"""What evaluations read that never read what a pre-training has read, unless they are told."""
Model = TypeVar("Model", bound=BaseModel)
NAME = "^[a-z][a-z0-9_]*$"
Fields = dict[str, Any]
"""Values of specification fields by name; `grid` checks them against the specifications."""


class PaperReference(Frozen):
    table: int | None = None
    figure: str | None = None
    section: str | None = None

    @property
    def source(self) -> str | None:
        """Where the printed numbers stand, as a file's name: `table3`, `figure1b`."""
        return f"table{self.table}" if self.table else f"figure{self.figure}" if self.figure else None

    @property
    def words(self) -> str | None:
        return f"Table {self.table}" if self.table else f"Figure {self.figure}" if self.figure else None


class Seeds(Frozen):
    """How many seeds: of the pre-training, and of the probe on each pre-training."""

    pretrain: int = Field(1, ge=1, le=9999)
    probe: int = Field(1, ge=1, le=9999)


class Grid(Frozen):
    """Axes of the grid: a product, together with axes that move in step (``zip``), less what ``exclude`` matches."""

    product: dict[str, list[Any]] = {}
    zip: dict[str, list[Any]] = {}
    exclude: list[dict[str, Any]] = []


class Evaluation(Frozen):
    """One evaluation of every pre-training, with what its specification has instead of the defaults.

    ``perturbation`` says which columns are shown (all five are always scored). `pretrain` alone means what a
    pre-training notes of itself: nothing is probed.
    """

    task: Literal[
        TaskKind.PRETRAIN, TaskKind.PROBE, TaskKind.PERTURBED, TaskKind.FINETUNE, TaskKind.ROTATION, TaskKind.VIDEO,
        TaskKind.SALIENCY, TaskKind.FACTORS,
    ]  # fmt: skip
    name: str = Field(pattern=NAME)  # by which columns and claims choose it; the task's own unless given
    fields: Fields = {}
    perturbation: list[Perturbation] = list(Perturbation)

    @model_validator(mode="before")
    @classmethod
    def _named_for_its_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and "task" in values:
            return {"name": str(values["task"]), **values}
        return values


class Selector(Frozen):
    """Chooses cells by coordinates; what is not given is left open."""

    method: Method | None = None
    backbone: Backbone | None = None
    augmentation: Augmentation | None = None
    representation: Representation | None = None
    perturbation: Perturbation | None = None
    evaluation: str | None = None  # by its name
    rotated: Rotated | None = None
    factor: Factor | None = None
    at: dict[str, str | int | float | bool] = {}  # by any other axis of the grid, as in {split_ratio: 0.8}

    def given(self) -> dict[str, str]:
        named = {key: str(value) for key, value in self if value is not None and key in Selector.model_fields}
        return {**{key: value for key, value in named.items() if key != "at"}, **{k: str(v) for k, v in self.at.items()}}


class Row(Selector):
    label: str
    epoch: int | None = Field(None, ge=1)  # of the file's own `epochs`; a profile with fewer scales it
    metric: Literal[Metric.STATUS] | None = None  # shown instead of the columns' own
    baseline: Selector | None = None  # what the row's gain is over, where that is not the group's first row
    printed_as: str | None = None  # a row that only repeats the paper: its method's word in the paper's numbers


class ColumnShape(Selector):
    label: str
    metric: Metric
    span: list[str] = []


def _columns(given: Any) -> Any:
    """In a file the word `perturbation` stands for the columns that most tables have."""
    if isinstance(given, str) and given != "perturbation":
        raise ValueError("expected `perturbation`, or a list of columns with `label` and `metric`")
    return [] if given == "perturbation" else given


class TableShape(Frozen):
    group: Literal["augmentation", "backbone", "method", "base", "recipe"] | None = None
    rows: list[Row] = Field(min_length=1)
    rows_are: str = "Method"  # what stands above the rows' labels
    columns: Annotated[list[ColumnShape], BeforeValidator(_columns)] = []  # none: the perturbations
    metric: Literal["top1", "top5"] = "top1"  # of the perturbations
    bold: dict[str, list[Perturbation]] = {}  # group -> columns whose best value is set bold; empty: all


class Claim(Frozen):
    """A sentence of the paper as a check on numbers, for each combination.

    `greater`: the first cell is greater than the second, every time. `greater_on_average`: the mean of the first is
    greater than that of the second, for sentences that speak of no single number. `falls`: the first less the second
    falls as the models grow. `status`: the status of the first (and only) cell is this one.
    """

    id: str
    text: str
    where: str
    cells: list[Selector] = Field(min_length=1, max_length=2)
    each: dict[str, list[str]] = {}  # by representation, perturbation, or an axis of the grid
    metric: Metric | None = None  # of the cells, where it is not the table's own
    relation: Literal["greater", "greater_on_average", "falls", "status"] = "greater"
    status: Projection | None = None

    @model_validator(mode="after")
    def _as_the_relation_needs(self) -> Self:
        if len(self.cells) != (1 if self.relation == "status" else 2):
            raise ValueError(f"relation `{self.relation}` needs {'one cell' if self.relation == 'status' else 'two cells'}")
        if (self.status is not None) != (self.relation == "status"):
            raise ValueError("`status` says which one a claim of relation `status` expects, and belongs there alone")
        if self.relation == "greater_on_average" and not self.each:
            raise ValueError("relation `greater_on_average` needs `each`: the combinations whose mean is meant")
        if self.relation == "falls" and len(self.each.get("backbone", [])) < 3:
            raise ValueError("relation `falls` needs three or more values of `backbone` in `each`")
        return self


class Experiment(Frozen):
    """One file of ``experiments/``: a grid, its evaluations, and the shape of its table."""

    title: str
    paper: PaperReference = PaperReference()
    pretrain: Fields
    probe: Fields = {}
    perturbed: Fields = {}
    finetune: Fields = {}
    rotation: Fields = {}
    video: Fields = {}
    saliency: Fields = {}
    factors: Fields = {}
    grid: Grid = Grid()
    seeds: Seeds = Seeds()
    evaluate: list[Evaluation] = Field(min_length=1)
    table: TableShape
    claims: list[Claim] = []

    def measuring(self, metric: Metric, name: str | None = None) -> list[Evaluation]:
        """The evaluations that measure ``metric``, or the one called ``name`` if it does.

        Where a probe is listed beside its perturbed scores, these stand for both.
        """
        found = [each for each in self.evaluate if metric in MEASURED_BY.get(each.task, ()) and name in (None, each.name)]
        kinds = [each.task for each in found]
        if sorted(kinds) == [TaskKind.PERTURBED, TaskKind.PROBE]:
            return [each for each in found if each.task is TaskKind.PERTURBED]
        return found

    def dataset_of(self, evaluation: Evaluation) -> str:
        """The data set that an evaluation reads, in the file's own words."""
        section = getattr(self, evaluation.task, {})
        default = DATASETS.get(evaluation.task, self.pretrain.get("dataset", ""))
        return str(evaluation.fields.get("dataset", section.get("dataset", default)))


class Profile(Frozen):
    """A scale: it replaces the paper's data sets and backbones and overrides fields, never the grid or the table."""

    title: str
    datasets: dict[str, str] = {}
    backbones: dict[Backbone, Backbone] = {}
    pretrain: Fields = {}
    methods: dict[Method, Fields] = {}  # what the pre-trainings of one method have instead; CLeVER takes its base's
    experiments: dict[str, Fields] = {}  # what those of one built-in experiment have instead; `backbone` too
    probe: Fields = {}
    perturbed: Fields = {}
    finetune: Fields = {}
    rotation: Fields = {}
    video: Fields = {}
    saliency: Fields = {}
    factors: Fields = {}
    evaluations: dict[str, Fields] = {}  # what evaluations of one name have instead, in whichever experiment
    control: bool = False  # also probe the untrained backbone of the first grid point
    devices: dict[TaskKind, Literal["one", "all"]] = {}


def folder() -> Path:
    """The folder of the built-in experiments (installed or in a checkout)."""
    return Path(str(resources.files("clever.experiments")))


def experiments() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.yaml"))


def profiles() -> list[str]:
    return sorted(path.stem for path in (folder() / "profiles").glob("*.yaml"))


def find_experiment(target: str) -> tuple[str, Document]:
    """The name and the document of a built-in experiment, or of anyone's file given by its path."""
    path = Path(target)
    is_file = os.path.isfile(path)  # Path.is_file raises where a folder above may not be entered
    if path.suffix in (".yaml", ".yml") or is_file:
        if not is_file:
            raise RequestError(f"{target}: there is no such file")
    elif target in experiments():
        path = folder() / f"{target}.yaml"
    else:
        raise RequestError(unknown("experiment", target, [*experiments(), "all"]) + "; or give the path of a file")
    return path.stem, read(path)


def read_experiment(document: Document) -> Experiment:
    values = document.value
    if isinstance(values, dict) and isinstance(values.get("grid"), dict):
        values = {**values, "grid": _nest_axes(values["grid"])}
    return validate(Experiment, document, values)


def open_profile(name: str) -> tuple[Document, Profile]:
    if name not in profiles():
        raise RequestError(unknown("profile", name, profiles()))
    document = read(folder() / "profiles" / f"{name}.yaml")
    return document, validate(Profile, document, document.value)


def _nest_axes(grid: Fields) -> Fields:
    """Grid axes as the model has them: in a file the axes of the product stand directly below ``grid``."""
    special = {key: grid[key] for key in ("zip", "exclude") if key in grid}
    return {"product": {key: value for key, value in grid.items() if key not in special}, **special}


def validate(model: type[Model], document: Document, values: Any) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        messages = [describe(problem, model, document) for problem in error.errors()]
        raise RequestError(*dict.fromkeys(messages)) from None


def describe(problem: Any, model: type[BaseModel], document: Document) -> str:
    """One sentence for one of pydantic's complaints: where, what was given, what is allowed."""
    place: Place = problem["loc"]
    if problem["type"] == "literal_error" and place[-1] == "[key]":
        place = place[:-1]  # the key itself is meant
    if place[:2] == ("grid", "product"):
        place = ("grid", *place[2:])
    where = document.where(place)
    name = ".".join(str(part) for part in place) or "the file"
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(model, problem["loc"][:-1])
        near = nearest(str(place[-1]), allowed)
        hint = f"; did you mean `{near}`?" if near else ""
        return f"{where}: unknown field `{name}`{hint} (allowed: {', '.join(allowed)})"
    if problem["type"] == "missing":
        return f"{where}: `{name}` is missing"
    if problem["type"] in ("enum", "literal_error"):
        allowed = re.findall(r"'(\w+)'", problem["ctx"]["expected"])
        return f"{where}: {unknown(_noun(problem['loc'], allowed), str(problem['input']), allowed)}"
    is_mapping = problem["type"] in ("model_type", "dict_type")
    wrong = "Input should be `field: value` pairs" if is_mapping else problem["msg"].removeprefix("Value error, ")
    return f"{where}: {name}: {wrong}{given(problem['input'])}"


def given(value: Any) -> str:
    """What was given instead, cut off where it is long."""
    text = repr(value)
    return f" (given: {text if len(text) <= 80 else text[:77] + '...'})"


def _noun(place: Place, allowed: Sequence[str]) -> str:
    """What the value at ``place`` is: the name of the vocabulary that is allowed there, or of the field."""
    for vocabulary in (Augmentation, Backbone, Method, Perturbation, Representation):
        if list(vocabulary) == list(allowed):
            return vocabulary.__name__.lower()
    if place[-1] == "[key]":
        place = place[:-2]
    return next((str(part) for part in reversed(place) if isinstance(part, str)), "value")


def _fields_at(model: Any, place: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that lies at ``place`` below ``model``."""
    for part in place:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
