"""The hyper-parameters of every method, one frozen model each, with the sources of their values.

Where a paper and its code (or another published recipe) disagree, ``recipe`` chooses; a value given explicitly wins
over both. Defaults are filled in while the model is validated, so a recipe is always complete.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from clever.names import Method, Recipe


class Frozen(BaseModel):
    """A complete, immutable model that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_enum_values=False)

    ADDED_LATER: ClassVar[frozenset[str]] = frozenset()
    """Fields that joined a model when results were already found by its identities. While such a field has its default
    it is left out of every dump, and so of the identity: the older results stay valid, and the default is for ever."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = dump(self)
        for name in self.ADDED_LATER:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values


class Views(StrEnum):
    """What a method wants to see of an image; `clever/data/augment.py` has the views themselves."""

    MULTI_CROP = "multi_crop"  # DINO's: two global crops and some local ones
    SIMSIAM = "simsiam"  # two views, as all the following; also of DDCL and MoCo v2
    SIMCLR = "simclr"  # stronger colours
    BYOL = "byol"  # two views that differ in blur and solarisation
    MOCO_V1 = "moco_v1"  # no blur


class Schedule(StrEnum):
    """What the learning rate does after warm-up."""

    COSINE = "cosine"  # falls step by step
    EPOCH_COSINE = "epoch_cosine"  # falls after every epoch
    STEPS = "steps"  # is divided by ten after 60 % and 80 % of all steps
    CONSTANT = "constant"


class TrainingRecipe(Frozen):
    """What the trainer asks of every method."""

    ADDED_LATER = frozenset({"schedule", "decay_all"})
    BY_RECIPE: ClassVar[dict[Recipe, dict[str, Any]]] = {}
    VIEWS: ClassVar[Views]
    OF_THE_SPEC: ClassVar[dict[str, Any]] = {}  # other defaults of PretrainSpec, as the method's sources have them

    recipe: Recipe = Recipe.CODE
    optimiser: str = Field(pattern="^(adamw|adam|sgd|lars)$")
    learning_rate: float = Field(gt=0)  # for a global batch of 256; scaled linearly
    min_learning_rate: float = Field(0.0, ge=0)
    sgd_momentum: float = Field(0.9, ge=0, lt=1)  # of LARS too
    weight_decay: float = Field(ge=0)
    decay_all: bool = False  # biases and one-dimensional parameters too
    schedule: Schedule = Schedule.COSINE
    warmup_epochs: float = Field(0, ge=0)
    clip: float = Field(0.0, ge=0)  # largest norm of each parameter's gradient; 0 switches it off

    @model_validator(mode="before")
    @classmethod
    def _fill_by_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        try:
            recipe = Recipe(values.get("recipe", Recipe.CODE))
        except ValueError:
            return values  # the field's own validation says what is wrong
        return {**cls.BY_RECIPE.get(recipe, {}), **values}


class DinoRecipe(TrainingRecipe):
    """DINO as CLeVER's authors run it; the source of each value is the released code unless said otherwise."""

    VIEWS = Views.MULTI_CROP
    BY_RECIPE = {
        Recipe.CODE: {"optimiser": "adamw", "learning_rate": 5e-4},
        Recipe.PAPER: {"optimiser": "sgd", "learning_rate": 1e-3},  # appendix 5.2
    }

    min_learning_rate: float = Field(1e-6, ge=0)
    weight_decay: float = Field(0.04, ge=0)
    weight_decay_end: float = Field(0.4, ge=0)
    warmup_epochs: float = Field(10, ge=0)
    clip: float = Field(3.0, ge=0)
    freeze_last_layer_epochs: int = Field(1, ge=0)
    ema: float = Field(0.996, ge=0, le=1)
    ema_end: float = Field(1.0, ge=0, le=1)
    teacher_temperature: float = Field(0.04, gt=0)
    student_temperature: float = Field(0.1, gt=0)
    center_momentum: float = Field(0.9, ge=0, le=1)
    drop_path: float = Field(0.1, ge=0, lt=1)  # student only; a VMamba's is .2 unless given, and the teacher's too
    head_hidden: int = Field(2048, ge=1)
    head_bottleneck: int = Field(256, ge=1)
    head_batch_norm: bool = False  # the small profiles need it: without it the loss stays at ln K for long
    prototypes: int = Field(65536, ge=2)  # K, output dimensions of the base method's head


class TwoViewRecipe(TrainingRecipe):
    """What the methods that compare two views of an image share."""

    ADDED_LATER = frozenset()
    OF_THE_SPEC = {"global_scale": (0.2, 1.0), "local_crops": 0, "global_batch": 256}

    head_hidden: int = Field(2048, ge=1)
    head_outputs: int = Field(2048, ge=2)


class SimsiamRecipe(TwoViewRecipe):
    """SimSiam (Chen and He 2021) as its authors' code trains it."""

    VIEWS = Views.SIMSIAM

    optimiser: str = Field("sgd", pattern="^(adamw|adam|sgd|lars)$")
    learning_rate: float = Field(0.05, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    decay_all: bool = True
    schedule: Schedule = Schedule.EPOCH_COSINE
    predictor_hidden: int = Field(512, ge=1)
    constant_predictor: bool = True  # its learning rate neither warms up nor falls
    zero_init_residual: bool = True  # of a ResNet's residual branches


class SimclrRecipe(TwoViewRecipe):
    """SimCLR (Chen et al. 2020); `code` is a published recipe for ImageNet-100, `paper` the paper's for ImageNet."""

    VIEWS = Views.SIMCLR
    OF_THE_SPEC = {**TwoViewRecipe.OF_THE_SPEC, "global_scale": (0.08, 1.0)}
    BY_RECIPE = {
        Recipe.CODE: {"weight_decay": 1e-4, "temperature": 0.2, "head_hidden": 4096, "head_outputs": 512},
        Recipe.PAPER: {"weight_decay": 1e-6, "temperature": 0.1, "head_hidden": 2048, "head_outputs": 128},
    }

    optimiser: str = Field("lars", pattern="^(adamw|adam|sgd|lars)$")
    learning_rate: float = Field(0.3, gt=0)
    warmup_epochs: float = Field(10, ge=0)
    temperature: float = Field(gt=0)


class DebiasedRecipe(TwoViewRecipe):
    """Debiased contrastive learning (Chuang et al. 2020) as its code trains it; its views are SimCLR's here."""

    VIEWS = Views.SIMCLR
    OF_THE_SPEC = SimclrRecipe.OF_THE_SPEC

    optimiser: str = Field("adam", pattern="^(adamw|adam|sgd|lars)$")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    decay_all: bool = True
    schedule: Schedule = Schedule.CONSTANT
    temperature: float = Field(0.5, gt=0)
    positive_share: float = Field(0.1, ge=0, lt=1)  # tau+: how probably a negative is of the anchor's class
    head_hidden: int = Field(512, ge=1)
    head_outputs: int = Field(128, ge=2)


class ByolRecipe(TwoViewRecipe):
    """BYOL (Grill et al. 2020)."""

    VIEWS = Views.BYOL
    OF_THE_SPEC = {**TwoViewRecipe.OF_THE_SPEC, "global_scale": (0.08, 1.0)}

    optimiser: str = Field("lars", pattern="^(adamw|adam|sgd|lars)$")
    learning_rate: float = Field(0.45, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    warmup_epochs: float = Field(10, ge=0)
    ema: float = Field(0.99, ge=0, le=1)
    ema_end: float = Field(1.0, ge=0, le=1)
    head_hidden: int = Field(4096, ge=1)
    head_outputs: int = Field(256, ge=2)
    predictor_hidden: int = Field(4096, ge=1)


class MocoRecipe(TwoViewRecipe):
    """What the two versions of MoCo share (He et al. 2020)."""

    optimiser: str = Field("sgd", pattern="^(adamw|adam|sgd|lars)$")
    weight_decay: float = Field(1e-4, ge=0)
    decay_all: bool = True
    ema: float = Field(0.999, ge=0, le=1)
    queue: int = Field(65536, ge=1)  # how many earlier keys are negatives
    head_outputs: int = Field(128, ge=2)


class MocoV1Recipe(MocoRecipe):
    """MoCo v1; `code` has the queue of a published run on ImageNet-100, `paper` that of the paper for ImageNet."""

    VIEWS = Views.MOCO_V1
    BY_RECIPE = {Recipe.CODE: {"queue": 16384}, Recipe.PAPER: {"queue": 65536}}

    learning_rate: float = Field(0.03, gt=0)
    schedule: Schedule = Schedule.STEPS
    temperature: float = Field(0.07, gt=0)


class MocoV2Recipe(MocoRecipe):
    """MoCo v2 (Chen et al. 2020); `code` is right for ImageNet-100, where .03 at a batch of 128 is much better than at
    256 (77.5 against 67.5 after 200 epochs); `paper` has the paper's rate for ImageNet."""

    VIEWS = Views.SIMSIAM
    OF_THE_SPEC = {**TwoViewRecipe.OF_THE_SPEC, "global_batch": 128}
    BY_RECIPE = {Recipe.CODE: {"learning_rate": 0.06}, Recipe.PAPER: {"learning_rate": 0.03}}

    schedule: Schedule = Schedule.EPOCH_COSINE
    temperature: float = Field(0.2, gt=0)


class RefosnetRecipe(MocoV2Recipe):
    """A reconstruction after the abstract of RefosNet, on MoCo v2: these values are ours, not its authors'."""

    split_ratio: float = Field(0.8, gt=0, lt=1)
    equivariant_weight: float = Field(1.0, ge=0)
    passivation: float = Field(0.1, ge=0, le=1)  # share of the equivariant part's gradient that reaches the backbone


BASES = (Method.DINO, Method.SIMSIAM, Method.SIMCLR, Method.BYOL, Method.MOCO_V2)
"""The methods that CLeVER can be put around."""


def _can_be_wrapped(base: Method) -> Method:
    if base not in BASES:
        raise ValueError(f"`{base}` is no base of CLeVER (allowed: {', '.join(BASES)})")
    return base


Base = Annotated[Method, AfterValidator(_can_be_wrapped)]


class SplitRecipe(Frozen):
    """What CLeVER adds to a base: the split of the features and the two penalties (paper, section 3.2, Eq. 9-13)."""

    split_ratio: float = Field(0.8, gt=0, lt=1)  # share of the features that is z_IR (Fig. 3a)
    projection_dim: int = Field(ge=2)  # output dimensions of h_EF (Fig. 3b)
    base_weight: float = Field(1.0, ge=0)  # alpha of Eq. 13
    orth_weight: float = Field(1.0, ge=0)  # beta of Eq. 13
    preg_weight: float = Field(0.001, ge=0)  # lambda of Eq. 13 (Fig. 3c)
    orthogonality: str = Field(pattern="^(cosine|dot)$")


def _with_orthogonality(base: type[TrainingRecipe]) -> dict[Recipe, dict[str, Any]]:
    """The base's own choices, and L_Orth as the released code (cosine) or the paper (dot, Eq. 3 and 11) has it."""
    kinds = {Recipe.CODE: "cosine", Recipe.PAPER: "dot"}
    return {recipe: {**base.BY_RECIPE.get(recipe, {}), "orthogonality": kind} for recipe, kind in kinds.items()}


class WrapperRecipe(SplitRecipe):
    """CLeVER over some base, which the model of its hyper-parameters belongs to."""

    base: Base

    @model_validator(mode="after")
    def _of_this_base(self) -> Self:
        own = type(self).model_fields["base"].default
        if self.base != own:
            raise ValueError(f"base `{self.base}` has other hyper-parameters than base `{own}`")
        return self


class CleverRecipe(WrapperRecipe, DinoRecipe):
    """CLeVER over DINO, which is what `clever` alone means."""

    ADDED_LATER = DinoRecipe.ADDED_LATER | {"base"}
    BY_RECIPE = _with_orthogonality(DinoRecipe)

    base: Base = Method.DINO
    projection_dim: int = Field(65536, ge=2)


class CleverSimsiamRecipe(WrapperRecipe, SimsiamRecipe):
    """CLeVER over SimSiam; beyond the paper, as the next three."""

    BY_RECIPE = _with_orthogonality(SimsiamRecipe)

    base: Base = Method.SIMSIAM
    projection_dim: int = Field(2048, ge=2)


class CleverSimclrRecipe(WrapperRecipe, SimclrRecipe):
    """CLeVER over SimCLR."""

    BY_RECIPE = {
        recipe: {**values, "projection_dim": values["head_outputs"]}
        for recipe, values in _with_orthogonality(SimclrRecipe).items()
    }

    base: Base = Method.SIMCLR


class CleverByolRecipe(WrapperRecipe, ByolRecipe):
    """CLeVER over BYOL."""

    BY_RECIPE = _with_orthogonality(ByolRecipe)

    base: Base = Method.BYOL
    projection_dim: int = Field(256, ge=2)


class CleverMocoV2Recipe(WrapperRecipe, MocoV2Recipe):
    """CLeVER over MoCo v2."""

    BY_RECIPE = _with_orthogonality(MocoV2Recipe)

    base: Base = Method.MOCO_V2
    projection_dim: int = Field(128, ge=2)


class DdclRecipe(SplitRecipe, SimsiamRecipe):
    """DDCL: CLeVER over SimSiam without L_PReg, as the authors' earlier code trains it (Tables 1 and 2).

    Under `paper` L_V is the absolute value of Eq. 3's dot product, which as printed has no lower bound.
    """

    ADDED_LATER = frozenset({"extra_epochs"})
    BY_RECIPE = _with_orthogonality(SimsiamRecipe)

    warmup_epochs: float = Field(30, ge=0)
    # Before the others, and counted by no table. In the released script they are the warm-up: the profiles say so, since
    # results that were found before this field was there have none, and mean none.
    extra_epochs: int = Field(0, ge=0)
    projection_dim: int = Field(2048, ge=2)
    preg_weight: float = Field(0.0, ge=0)
    zero_init_residual: bool = False


class DdclPregRecipe(DdclRecipe):
    """DDCL with L_PReg, which keeps h_V from vanishing."""

    preg_weight: float = Field(0.001, ge=0)


RECIPES: dict[Method, type[TrainingRecipe]] = {
    Method.DINO: DinoRecipe,
    Method.CLEVER: CleverRecipe,
    Method.SIMSIAM: SimsiamRecipe,
    Method.DDCL: DdclRecipe,
    Method.DDCL_PREG: DdclPregRecipe,
    Method.SIMCLR: SimclrRecipe,
    Method.DEBIASED: DebiasedRecipe,
    Method.BYOL: ByolRecipe,
    Method.MOCO_V1: MocoV1Recipe,
    Method.MOCO_V2: MocoV2Recipe,
    Method.REFOSNET: RefosnetRecipe,
}
_WRAPPERS: dict[str, type[TrainingRecipe]] = {
    Method.DINO: CleverRecipe,
    Method.SIMSIAM: CleverSimsiamRecipe,
    Method.SIMCLR: CleverSimclrRecipe,
    Method.BYOL: CleverByolRecipe,
    Method.MOCO_V2: CleverMocoV2Recipe,
}


def recipe_of(method: Method, values: Mapping[str, Any]) -> type[TrainingRecipe]:
    """The model of a method's hyper-parameters ``values``; for CLeVER, that over the base which they name."""
    wraps = values.get("base") if method == Method.CLEVER else None
    return _WRAPPERS.get(str(wraps), RECIPES[method])  # which refuses what is no base
