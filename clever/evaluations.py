"""Frozen specifications of the evaluations: what is read with a backbone, and how."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from clever.computing import BackboneShape, Computing, check_scale
from clever.names import Precision, TaskKind
from clever.recipes import Frozen


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
    ADDED_LATER = frozenset({"resize_rule"})

    task: Literal["invariance", "sensitivity"]
    # Of invariance only, and both as in the released code: change the colours of rotated images too (`jitter`), and
    # resize them bilinear, those that are not rotated bicubic (`released`; `uniform`: all of them bicubic).
    jitter: bool = False
    resize_rule: Literal["released", "uniform"] = "uniform"

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> "RotationSpec":
        if self.task == "sensitivity":
            if self.jitter:
                raise ValueError("jitter says nothing to sensitivity: quarter turns leave the colours alone")
            if self.resize_rule != "uniform":
                raise ValueError("resize_rule says nothing to sensitivity: all of its images are resized bicubic")
            return self
        for name in ("train_scale", "epochs", "global_batch", "learning_rate", "momentum", "weight_decay"):
            default = WEIGHT_DECAY[self.trains] if name == "weight_decay" else type(self).model_fields[name].default
            if getattr(self, name) != default:
                raise ValueError(f"{name} says nothing to invariance: its classifier was fine-tuned before")
        return self


class Segmenting(Frozen):
    """What the evaluations share that segment whole photographs by a frozen ViT's patches, with nothing trained.

    Frames are read in their own size or shrunk by ``frame_side``: no size of a pre-training's crops matters.
    """

    dataset: str
    shape: BackboneShape
    threads: int = Field(1, ge=1)

    # What readers of labelled images have, for those who handle either.
    seed: ClassVar[int] = 0
    split_ratio: ClassVar[None] = None

    @model_validator(mode="after")
    def _has_patches(self) -> Self:
        if not self.shape.name.startswith("vit"):
            raise ValueError(f"shape {self.shape.name} has no patches, by which {self.kind} segments: choose a `vit_...`")
        return self


class VideoSpec(Segmenting):
    """The first frame's mask carried on through a video by the likeness of patches (Table 5, DAVIS 2017)."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.VIDEO] = TaskKind.VIDEO
    frame_side: int = Field(480, ge=4)  # the shorter side of a frame
    sequences: int | None = Field(None, ge=1)  # only so many, in the order of their list
    frames: int | None = Field(None, ge=3)  # only so many of each, from the first on
    previous: int = Field(7, ge=0)  # frames that labels are taken from, beside the first
    radius: int = Field(12, ge=0)  # in patches: the window is 2 radius + 1 wide and high
    neighbours: int = Field(5, ge=1)
    temperature: float = Field(0.1, gt=0)


class SaliencySpec(Segmenting):
    """Salient objects by TokenCut, without and with the bilateral solver (Table 5, Figure 4)."""

    semantics: ClassVar[int] = 1
    kind: Literal[TaskKind.SALIENCY] = TaskKind.SALIENCY
    solver: bool = True  # also score the masks after the bilateral solver
    frame_side: int | None = Field(None, ge=4)  # cut in an image shrunk to this shorter side; None: in the whole one
    part: tuple[int, int] | None = None  # (k, n): every n-th image from the k-th on, in the order of their names
    images: int | None = Field(None, ge=1)  # only so many of these
    shown: int = Field(6, ge=0)  # of these, spread over the set, pictures are kept for Figure 4

    @model_validator(mode="after")
    def _part_is_one(self) -> Self:
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part is (k, n) with 1 <= k <= n, not {self.part}")
        return self
