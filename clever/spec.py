"""Frozen specifications of tasks and their identity.

An identity covers everything that may change a number and nothing else: no path, worker count, device or label.
"""

import hashlib
import json
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from clever.computing import FEATURES, BackboneShape, Computing, check_scale, invariant_dims
from clever.evaluations import (
    FactorsSpec,
    FinetuneSpec,
    PerturbedSpec,
    ProbeSpec,
    RotationSpec,
    SaliencySpec,
    VideoSpec,
)
from clever.names import Augmentation, Backbone, Method, Stem, TaskKind
from clever.recipes import Frozen, TrainingRecipe, Views, recipe_of

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
        if self.split_ratio is not None:
            invariant_dims(FEATURES[self.backbone], self.split_ratio)  # refuses an empty part
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
    def extra_epochs(self) -> int:
        """Epochs that precede the ``epochs`` of the tables."""
        return getattr(self.hyper, "extra_epochs", 0)

    @property
    def all_epochs(self) -> int:
        """How long the training is."""
        return self.extra_epochs + self.epochs

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs after which a pre-training notes how healthy it is: all of a short one, twenty of a long one.

        As a table counts them: without the extra ones.
        """
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


Evaluating = ProbeSpec | PerturbedSpec | FinetuneSpec | RotationSpec | VideoSpec | SaliencySpec | FactorsSpec
AnySpec = PretrainSpec | ImportSpec | Evaluating
SPECS: dict[TaskKind, type[AnySpec]] = {
    TaskKind.PRETRAIN: PretrainSpec,
    TaskKind.IMPORTED: ImportSpec,
    TaskKind.PROBE: ProbeSpec,
    TaskKind.PERTURBED: PerturbedSpec,
    TaskKind.FINETUNE: FinetuneSpec,
    TaskKind.ROTATION: RotationSpec,
    TaskKind.VIDEO: VideoSpec,
    TaskKind.SALIENCY: SaliencySpec,
    TaskKind.FACTORS: FactorsSpec,
}


class Task(Frozen):
    """One unit of work: a specification and the ids of the tasks that it reads from."""

    spec: SerializeAsAny[Frozen]
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> TaskKind:
        return self.spec.kind

    @property
    def shareable(self) -> bool:
        """Whether several processes may do it together, each on a device of its own."""
        turned = isinstance(self.spec, RotationSpec) and self.spec.task == "sensitivity"
        return turned or isinstance(self.spec, PretrainSpec | FinetuneSpec)

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
