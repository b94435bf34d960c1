"""The vocabulary of the project: every name that may appear in a file, on the command line or in a table."""

import difflib
from collections.abc import Iterable
from enum import StrEnum


class Method(StrEnum):
    DINO = "dino"
    CLEVER = "clever"
    SIMSIAM = "simsiam"
    DDCL = "ddcl"
    DDCL_PREG = "ddcl_preg"
    SIMCLR = "simclr"
    DEBIASED = "debiased"
    BYOL = "byol"
    MOCO_V1 = "moco_v1"
    MOCO_V2 = "moco_v2"
    REFOSNET = "refosnet"


class Backbone(StrEnum):
    RESNET18 = "resnet18"
    RESNET50 = "resnet50"
    VIT_TINY = "vit_tiny"
    VIT_SMALL = "vit_small"
    RESNET_PICO = "resnet_pico"
    RESNET_NANO = "resnet_nano"
    RESNET_MICRO = "resnet_micro"
    VIT_NANO = "vit_nano"
    VMAMBA_TINY = "vmamba_tiny"
    VMAMBA_NANO = "vmamba_nano"


class Augmentation(StrEnum):
    """What the pre-training sees (paper, section 4.1 and appendix 5.3)."""

    BAUG = "baug"
    CAUG = "caug"
    CAUG_PLUS = "caug_plus"


class Perturbation(StrEnum):
    """What the test images suffer, in the order of the paper's columns (section 4.2)."""

    ORIG = "orig"
    CJ = "cj"
    CJ_FLIP = "cj_flip"
    CJ_RO = "cj_ro"
    CJ_RO_ET = "cj_ro_et"


class Factor(StrEnum):
    """What is changed, one at a time, to see where the features hold it: the parameters of the augmentations."""

    ROTATION = "rotation"
    CROP_X = "crop_x"
    CROP_Y = "crop_y"
    CROP_SCALE = "crop_scale"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    SATURATION = "saturation"
    HUE = "hue"
    BLUR = "blur"
    ELASTIC = "elastic"
    FLIP = "flip"
    SOLARISATION = "solarisation"


class Rotated(StrEnum):
    """How test images are turned in the test of invariance: not, or at random within so many degrees (Table 6)."""

    ORIG = "orig"
    RO_90 = "ro_90"
    RO_180 = "ro_180"


class Representation(StrEnum):
    """Which part of the features is read: all of them, z_IR ("-IR" in the paper) or z_EF."""

    FULL = "full"
    INVARIANT = "invariant"
    EQUIVARIANT = "equivariant"


class TaskKind(StrEnum):
    PRETRAIN = "pretrain"
    IMPORTED = "imported"  # trained elsewhere: `clever eval` brings it into the store, nothing runs it
    PROBE = "probe"
    PERTURBED = "perturbed"
    FINETUNE = "finetune"
    ROTATION = "rotation"
    VIDEO = "video"
    SALIENCY = "saliency"
    FACTORS = "factors"


class Metric(StrEnum):
    """What a table's column may show."""

    TOP1 = "top1"
    TOP5 = "top5"
    BEST_TOP1 = "best_top1"  # after the epoch that is best on the test images: chosen by them, so too high
    TOP1_STD = "top1_std"  # sample standard deviation of top-1 over the seeds
    JF_MEAN = "jf_mean"  # of DAVIS: (J&F)_m, J_m and F_m
    J_MEAN = "j_mean"
    F_MEAN = "f_mean"
    IOU = "iou"  # of saliency masks
    ACC = "acc"
    FMAX = "fmax"
    IOU_BS = "iou+bs"  # and after the bilateral solver
    ACC_BS = "acc+bs"
    FMAX_BS = "fmax+bs"
    READ = "read"  # how well a factor is read from features: R^2, or AUC of what is on or off
    READ_AS_FEW = "read_as_few"  # the same from as many columns as the smallest representation has
    MOVED = "moved"  # how far a factor moves the features, in distances between images
    CHANGED = "changed"  # the same relative to the features' own length: |z(t(x)) - z(x)| / |z(x)| (Eq. 6 to 9)
    ROTATION = "rotation"  # does pre-training see rotated images?
    BACKBONE = "backbone"
    PARAMETERS = "parameters"  # of the backbone, in millions
    GFLOPS = "gflops"  # by the convention of `clever/evaluate/complexity.py`
    HEAD_NORM_V = "head_norm_v"  # log10 of the L2 norm of the parameters of DDCL's h_V, and so on
    HEAD_NORM_I = "head_norm_i"
    Z_V = "z_v"  # log10 of the mean absolute output of h_V, and so on
    Z_I = "z_i"
    STATUS = "status"  # what became of h_V beside h_I, in words


LAST = (Metric.TOP1, Metric.TOP5, Metric.TOP1_STD)
SCORES = (*LAST, Metric.BEST_TOP1)
OF_VIDEO = (Metric.JF_MEAN, Metric.J_MEAN, Metric.F_MEAN)
OF_SALIENCY = (Metric.IOU, Metric.ACC, Metric.FMAX, Metric.IOU_BS, Metric.ACC_BS, Metric.FMAX_BS)
OF_FACTORS = (Metric.READ, Metric.READ_AS_FEW, Metric.MOVED, Metric.CHANGED)
FACTS = (Metric.ROTATION, Metric.BACKBONE, Metric.PARAMETERS, Metric.GFLOPS)
SIZES = (Metric.HEAD_NORM_V, Metric.HEAD_NORM_I, Metric.Z_V, Metric.Z_I)
"""Measured of a classifier (`LAST`: also of one that is only tested), a video, a mask or a factor; known of a model;
noted during pre-training, at an epoch."""


MEASURED_BY = {
    TaskKind.PROBE: (*SCORES, Metric.PARAMETERS, Metric.GFLOPS),
    TaskKind.PERTURBED: (*LAST, Metric.PARAMETERS, Metric.GFLOPS),
    TaskKind.FINETUNE: SCORES,
    TaskKind.ROTATION: SCORES,
    TaskKind.VIDEO: OF_VIDEO,
    TaskKind.SALIENCY: OF_SALIENCY,
    TaskKind.FACTORS: OF_FACTORS,
}
"""Which kind of evaluation measures what; all else is known of the pre-training itself."""


class Projection(StrEnum):
    """What became of h_V (h_EF) beside h_I (h_IR) during pre-training (Table 1)."""

    COLLAPSE = "collapse"
    SIMILAR = "similar projection"
    UNEQUAL = "unequal projection"


class Recipe(StrEnum):
    """Which source is followed where the paper and its released code disagree."""

    CODE = "code"
    PAPER = "paper"


class Precision(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Pipeline(StrEnum):
    """How views are made: torchvision, image by image in workers, or our own batched tensor operations."""

    REFERENCE = "reference"
    BATCHED = "batched"


class Stem(StrEnum):
    """First layers. Of a ResNet: 7x7/2 and max-pooling, or one 3x3/1 for small images; of a VMamba: two 3x3/2, or
    3x3/1 and 3x3/2.
    """

    STANDARD = "standard"
    SMALL = "small"


class Action(StrEnum):
    """What a plan intends for a task."""

    SUBMIT = "submit"
    REUSE = "reuse"
    ATTACH = "attach"
    RETRY = "retry"
    BLOCKED = "blocked"


class State(StrEnum):
    """What is known of a task, and so of a table's cell."""

    DONE = "done"
    PENDING = "pending"
    RUNNING = "running"
    STALLED = "stalled"
    FAILED = "failed"
    MISSING = "missing"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "n/a"


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


LABELS: dict[str, str] = {
    Method.DINO: "DINO",
    Method.CLEVER: "CLeVER",
    Method.SIMSIAM: "SimSiam",
    Method.DDCL: "DDCL",
    Method.DDCL_PREG: "DDCL w/ L_PReg",
    Method.SIMCLR: "SimCLR",
    Method.DEBIASED: "Debiased",
    Method.BYOL: "BYOL",
    Method.MOCO_V1: "MoCo v1",
    Method.MOCO_V2: "MoCo v2",
    Method.REFOSNET: "Rotation-equivariant MoCo v2, after RefosNet",
    Backbone.RESNET18: "ResNet18",
    Backbone.RESNET50: "ResNet50",
    Backbone.VIT_TINY: "ViT-Tiny",
    Backbone.VIT_SMALL: "ViT-Small",
    Backbone.VMAMBA_TINY: "VMamba-Tiny",
    Augmentation.BAUG: "BAug",
    Augmentation.CAUG: "CAug (w/ Ro)",
    Augmentation.CAUG_PLUS: "CAug+ (w/ Ro and ET)",
    Perturbation.ORIG: "Orig.",
    Perturbation.CJ: "CJ",
    Perturbation.CJ_FLIP: "CJ+Flip",
    Perturbation.CJ_RO: "CJ+Ro",
    Perturbation.CJ_RO_ET: "CJ+Ro+ET",
    Representation.INVARIANT: "z_IR",
    Representation.EQUIVARIANT: "z_EF",
}
"""How the paper prints a name."""


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that ``word`` was probably meant to be, or None when nothing is near."""
    near = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.5)
    return near[0] if near else None


def unknown(what: str, word: str, allowed: Iterable[str]) -> str:
    """One sentence that refuses ``word`` and says what would be accepted."""
    allowed = [str(name) for name in allowed]
    near = nearest(word, allowed)
    hint = f"; did you mean `{near}`?" if near else ""
    return f"`{word}`: no such {what}{hint} (allowed: {', '.join(allowed)})"
