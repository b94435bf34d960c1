"""Frozen specifications of tasks and their identity.

An identity covers everything that may change a number and nothing else: no path, worker count, device or label.
"""

import hashlib
import json
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from clever.names import Augmentation, Backbone, Method, Pipeline, Precision, Stem, TaskKind
from clever.recipes import Frozen, TrainingRecipe, Views, recipe_of


class BackboneShape(Frozen):
    """What fixes a backbone's parameters: its name, the side of its nominal input, and its first layer."""

    name: Backbone
    image_size: int = Field(ge=4)
    patch_size: int | None = None  # ViT only
    stem: Stem | None = None  # ResNet and VMamba


def check_scale(name: str, scale: tuple[float, float]) -> None:
    """Raises ValueError unless ``scale`` is a range of areas that a random crop may take."""
    low, high = scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"{name} is a range (low, high) with 0 < low <= high <= 1, not ({low}, {high})")


class Computing(Frozen):
    """How a task computes, as far as it changes numbers. The profile sets it, never the machine."""

    precision: Precision = Precision.FP32
    pipeline: Pipeline = Pipeline.REFERENCE
    threads: int = Field(1, ge=1)  # CPU threads of each process
    subset: int | None = Field(None, ge=1)  # use only so many images of each split
    image_size: int | None = Field(None, ge=4)  # resize stored images to this side first; None keeps them
    seed: int = Field(0, ge=0)


LOCAL = ("local_size", "local_crops", "local_scale")
"""Fields of a pre-training that only a method with local crops reads."""

VMAMBA_DROP_PATH = 0.2
"""The release's rate for a VMamba, student and teacher; the default of `drop_path` is its rate for a ViT's student."""

MILESTONES = 20  # how many epochs of a long pre-training are milestones


class PretrainSpec(Computing):
    """One pre-training. The sizes and scales of the crops are DINO's (2 global, 8 local) unless the method's recipe has
    defaults of its own; a method of two views has no local crops."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.PRETRAIN] = TaskKind.PRETRAIN
    dataset: str
    method: Method
    hyper: SerializeAsAny[TrainingRecipe]
    backbone: Backbone
    patch_size: int = Field(16, ge=1)
    stem: Stem = Stem.STANDARD
    augmentation: Augmentation
    global_size: int = Field(224, ge=4)
    local_size: int = Field(96, ge=4)
    local_crops: int = Field(8, ge=0)
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    epochs: int = Field(ge=1)
    global_batch: int = Field(512, ge=2)

    @model_validator(mode="before")
    @classmethod
    def _read_hyper_by_method(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("hyper"), dict) and values.get("method") in list(Method):
            hyper = values["hyper"]
            values = {**values, "hyper": recipe_of(Method(values["method"]), hyper).model_validate(hyper)}
        if isinstance(values, dict) and isinstance(values.get("hyper"), TrainingRecipe):
            hyper = _with_drop_path_of(str(values.get("backbone")), values["hyper"])
            return {**hyper.OF_THE_SPEC, **values, "hyper": hyper}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "PretrainSpec":
        check_scale("global_scale", self.global_scale)
        check_scale("local_scale", self.local_scale)
        if self.hyper.VIEWS != Views.MULTI_CROP:
            for name in LOCAL:
                if getattr(self, name) != self._default(name):
                    raise ValueError(f"{name} says nothing to {self.method}, which sees two views of an image")
        if self.backbone.startswith("vit"):
            for name in ("global_size", *(("local_size",) if self.hyper.VIEWS == Views.MULTI_CROP else ())):
                if getattr(self, name) % self.patch_size:
                    raise ValueError(f"{name} {getattr(self, name)} is no multiple of patch_size {self.patch_size}")
        return self

    def _default(self, name: str) -> Any:
        return self.hyper.OF_THE_SPEC.get(name, type(self).model_fields[name].default)

    @property
    def shape(self) -> BackboneShape:
        vit = self.backbone.startswith("vit")
        return BackboneShape(
            name=self.backbone,
            image_size=self.global_size,
            patch_size=self.patch_size if vit else None,
            stem=None if vit else self.stem,
        )

    @property
    def split_ratio(self) -> float | None:
        """Share of the features that is invariant; None for a method without a split."""
        return getattr(self.hyper, "split_ratio", None)

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs after which a pre-training notes how healthy it is: all of a short one, twenty of a long one."""
        steps = min(self.epochs, MILESTONES)
        return tuple((2 * number * self.epochs + steps) // (2 * steps) for number in range(1, steps + 1))  # half up


def _with_drop_path_of(backbone: str, hyper: TrainingRecipe) -> TrainingRecipe:
    """``hyper`` with a VMamba's own rate of stochastic depth, where the method has one and none was given."""
    given = "drop_path" in hyper.model_fields_set or "drop_path" not in type(hyper).model_fields
    if given or not backbone.startswith("vmamba"):
        return hyper
    return hyper.model_copy(update={"drop_path": VMAMBA_DROP_PATH})


def count_micro_batches(global_batch: int, world: int, max_batch_per_device: int | None) -> int:
    """How many pieces each rank's share of a batch is cut into. Raises ValueError where it cannot be cut evenly."""
    pieces = 1 if max_batch_per_device is None else -(-global_batch // (world * max_batch_per_device))
    if global_batch % (world * pieces):
        raise ValueError(
            f"global_batch {global_batch} cannot be cut evenly into {world} ranks x {pieces} micro-batches: change the "
            f"number of processes or the largest batch per device (now {max_batch_per_device or 'unlimited'})"
        )
    return pieces


class Reading(Computing):
    """What every evaluation on labelled images shares."""

    dataset: str
    shape: BackboneShape
    split_ratio: float | None  # defines the heads: None gives `full` alone
    strict_split: bool = False  # split every concatenated block instead of the last one
    crop_size: int = Field(224, ge=4)
    resize: int = Field(256, ge=4)

    @model_validator(mode="after")
    def _crop_fits(self) -> "Reading":
        if self.crop_size % (self.shape.patch_size or 1):
            raise ValueError(f"crop_size {self.crop_size} is no multiple of patch_size {self.shape.patch_size}")
        if self.crop_size > self.resize:
            raise ValueError(f"crop_size {self.crop_size} is larger than resize {self.resize}: crops would be padded")
        return self


class ProbeSpec(Reading):
    """A linear probe on frozen features (evaluation protocol of Tables 2, 3, 8, 9)."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.PROBE] = TaskKind.PROBE
    weights: Literal["teacher", "untrained"] = "teacher"
    init_seed: int | None = None  # of the untrained backbone
    train_scale: tuple[float, float] = (0.08, 1.0)
    epochs: int = Field(100, ge=1)
    global_batch: int = Field(512, ge=1)
    learning_rate: float = Field(0.001, gt=0)  # for a batch of 256; scaled linearly
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "ProbeSpec":
        check_scale("train_scale", self.train_scale)
        return self


class PerturbedSpec(Reading):
    """The scores of a probe's heads under all five perturbations."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.PERTURBED] = TaskKind.PERTURBED
    resize_rule: Literal["released", "uniform"] = "released"  # released: bicubic for `orig`, bilinear for the rest
    passes: int = Field(1, ge=1)


class FactorsSpec(Reading):
    """Where the features hold what an augmentation changes: its parameters read from them, and how far they move."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.FACTORS] = TaskKind.FACTORS
    images_train: int = Field(10_000, ge=20)  # at most so many, drawn by the seed
    images_test: int = Field(5_000, ge=10)
    rotation: float = Field(90.0, gt=0, le=90)  # degrees, either way
    crop_area: float = Field(0.5, gt=0, lt=1)  # share of the image in a crop whose position is to be read
    crop_scale: tuple[float, float] = (0.25, 1.0)  # shares of the image in central crops
    brightness: float = Field(0.4, gt=0, le=1)  # factors 1 - x .. 1 + x
    contrast: float = Field(0.4, gt=0, le=1)
    saturation: float = Field(0.4, gt=0, le=1)
    hue: float = Field(0.1, gt=0, le=0.5)  # turns, either way
    blur: tuple[float, float] = (0.1, 2.0)  # pixels; small sides in proportion, as in pre-training
    elastic: float = Field(1.0, gt=0)  # 0 .. x times the displacement of pre-training

    @model_validator(mode="after")
    def _consistent(self) -> "FactorsSpec":
        check_scale("crop_scale", self.crop_scale)
        if self.crop_scale[0] == self.crop_scale[1]:
            raise ValueError("crop_scale is the range in which crops differ: its ends must not be equal")
        low, high = self.blur
        if not 0 < low < high <= 20:
            raise ValueError(f"blur is a range (low, high) of pixels with 0 < low < high <= 20, not ({low}, {high})")
        return self


WEIGHT_DECAY = {"all": 1e-4, "head": 0.0}
"""The default by what of a classifier is trained."""


class ClassifierSpec(Reading):
    """How a linear classifier on a pre-trained backbone is trained, together with it or alone (Tables 4, 6, 7)."""

    split_ratio: None = None  # the whole of the features is read
    strict_split: Literal[False] = False
    trains: Literal["all", "head"] = "all"  # head: the backbone stays as it is ("linear" in the paper)
    train_scale: tuple[float, float] = (0.08, 1.0)
    epochs: int = Field(200, ge=1)
    global_batch: int = Field(256, ge=2)
    learning_rate: float = Field(0.001, gt=0)  # of backbone and head, for a batch of 256; scaled linearly
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(ge=0)

    @model_validator(mode="before")
    @classmethod
    def _decay_by_what_is_trained(cls, values: Any) -> Any:
        if isinstance(values, dict) and (trains := values.get("trains", "all")) in tuple(WEIGHT_DECAY):
            return {"weight_decay": WEIGHT_DECAY[trains], **values}
        return values

    @model_validator(mode="after")
    def _trainable(self) -> "ClassifierSpec":
        check_scale("train_scale", self.train_scale)
        if self.trains == "all" and self.precision is Precision.FP16:
            raise ValueError("precision fp16: gradients of a backbone need scaling there; use bf16 or fp32")
        return self


class FinetuneSpec(ClassifierSpec):
    """A classifier of labelled images: of a few of them, or of other data than the pre-training saw (Table 4)."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.FINETUNE] = TaskKind.FINETUNE
    share: float | None = Field(None, gt=0, le=1)  # of the training images that have labels; None: all of them
    labels_by: Literal["draw", "list"] = "draw"  # a seeded draw from every class, or a published list of files

    @model_validator(mode="after")
    def _list_has_a_share(self) -> "FinetuneSpec":
        if self.labels_by == "list" and self.share is None:
            raise ValueError("labels_by list needs a share: it says which of the data set's lists is meant")
        return self


class RotationSpec(ClassifierSpec):
    """What rotations do to a fine-tuned classifier (`invariance`, Table 6), or whether a classifier of its own can tell
    by how many quarters an image was turned (`sensitivity`, Table 7). ``trains`` is how either was or is trained.
    """

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.ROTATION] = TaskKind.ROTATION
    task: Literal["invariance", "sensitivity"]
    jitter: bool = False  # invariance only: change the colours of rotated images too, as the released code does

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> "RotationSpec":
        if self.task == "sensitivity":
            if self.jitter:
                raise ValueError("jitter says nothing to sensitivity: quarter turns leave the colours alone")
            return self
        for name in ("train_scale", "epochs", "global_batch", "learning_rate", "momentum", "weight_decay"):
            default = WEIGHT_DECAY[self.trains] if name == "weight_decay" else type(self).model_fields[name].default
            if getattr(self, name) != default:
                raise ValueError(f"{name} says nothing to invariance: its classifier was fine-tuned before")
        return self


class ImportSpec(Frozen):
    """A backbone that was trained elsewhere, known by the bytes of its checkpoint: it stands where a pre-training does.

    Nothing computes it: `clever eval` itself puts the weights into the store, in our own format.
    """

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.IMPORTED] = TaskKind.IMPORTED
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    network: Literal["teacher", "student"] | None  # None where the checkpoint holds one alone
    method: Method | None  # None where nobody said it
    shape: BackboneShape
    split_ratio: float | None = Field(gt=0, lt=1)

    # What a pre-training has and this one lacks, for those who read either.
    augmentation: ClassVar[None] = None
    seed: ClassVar[int] = 0
    threads: ClassVar[int] = 1

    @property
    def backbone(self) -> Backbone:
        return self.shape.name


AnySpec = PretrainSpec | ImportSpec | ProbeSpec | PerturbedSpec | FactorsSpec | FinetuneSpec | RotationSpec
SPECS: dict[TaskKind, type[AnySpec]] = {
    TaskKind.PRETRAIN: PretrainSpec,
    TaskKind.IMPORTED: ImportSpec,
    TaskKind.PROBE: ProbeSpec,
    TaskKind.PERTURBED: PerturbedSpec,
    TaskKind.FINETUNE: FinetuneSpec,
    TaskKind.ROTATION: RotationSpec,
    TaskKind.FACTORS: FactorsSpec,
}


class Task(Frozen):
    """One unit of work: a specification and the ids of the tasks that it reads from."""

    spec: SerializeAsAny[Frozen]
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> TaskKind:
        return self.spec.kind

    @cached_property
    def document(self) -> dict[str, Any]:
        """What the identity is taken from, and what ``spec.json`` holds."""
        return {
            "kind": self.kind.value,
            "semantics": self.spec.semantics,
            "spec": self.spec.model_dump(mode="json"),
            "needs": sorted(self.needs),
        }

    @cached_property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of the document."""
        return hashlib.sha256(canonical(self.document).encode()).hexdigest()[:16]

    @cached_property
    def slug(self) -> str:
        """A readable name for the folder: kind, method, backbone, augmentation or data set."""
        spec = self.spec
        if isinstance(spec, PretrainSpec):
            parts = (spec.method, spec.backbone, spec.augmentation, spec.dataset)
        elif isinstance(spec, ImportSpec):
            parts = (spec.backbone,)
        else:
            untrained = ("untrained",) if getattr(spec, "weights", "") == "untrained" else ()
            parts = (spec.shape.name, *untrained, spec.dataset)
        return "-".join(str(part) for part in (self.kind, *parts)).replace("/", "_")

    @cached_property
    def folder(self) -> str:
        return f"{self.slug}-{self.id}"

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Task":
        """Read a task back from its ``spec.json``; raises ValueError where it is not one of ours."""
        try:
            kind, semantics, values, needs = (document[key] for key in ("kind", "semantics", "spec", "needs"))
            model = SPECS[TaskKind(kind)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the specification of a task: {error}") from None
        if semantics != model.semantics:
            raise ValueError(
                f"specification has semantics {semantics}, this version of clever computes {model.semantics}"
            )
        return cls(spec=model.model_validate(values), needs=needs)


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, and one spelling for every number (-0.0 becomes 0.0)."""
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value
