"""The hyper-parameters of every method, one frozen model each, with the sources of their values.

Where the paper (appendix 5.2) and the released code disagree, ``recipe`` chooses; a value given explicitly wins over
both. Defaults are filled in while the model is validated, so a recipe is always complete.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clever.names import Method, Recipe


class Frozen(BaseModel):
    """A complete, immutable model that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_enum_values=False)


class DinoRecipe(Frozen):
    """DINO as CLeVER's authors run it; the source of each value is the released code unless said otherwise."""

    BY_RECIPE: ClassVar[dict[Recipe, dict[str, Any]]] = {
        Recipe.CODE: {"optimiser": "adamw", "learning_rate": 5e-4},
        Recipe.PAPER: {"optimiser": "sgd", "learning_rate": 1e-3},  # appendix 5.2
    }

    recipe: Recipe = Recipe.CODE
    optimiser: str = Field(pattern="^(adamw|sgd)$")
    learning_rate: float = Field(gt=0)  # for a global batch of 256; scaled linearly
    min_learning_rate: float = Field(1e-6, ge=0)
    sgd_momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.04, ge=0)
    weight_decay_end: float = Field(0.4, ge=0)
    warmup_epochs: float = Field(10, ge=0)
    clip: float = Field(3.0, ge=0)  # largest norm of each parameter's gradient; 0 switches it off
    freeze_last_layer_epochs: int = Field(1, ge=0)
    ema: float = Field(0.996, ge=0, le=1)
    ema_end: float = Field(1.0, ge=0, le=1)
    teacher_temperature: float = Field(0.04, gt=0)
    student_temperature: float = Field(0.1, gt=0)
    center_momentum: float = Field(0.9, ge=0, le=1)
    drop_path: float = Field(0.1, ge=0, lt=1)  # student only
    head_hidden: int = Field(2048, ge=1)
    head_bottleneck: int = Field(256, ge=1)
    head_batch_norm: bool = False  # the small profiles need it: without it the loss stays at ln K for long
    prototypes: int = Field(65536, ge=2)  # K, output dimensions of the base method's head

    @model_validator(mode="before")
    @classmethod
    def _fill_by_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        try:
            recipe = Recipe(values.get("recipe", Recipe.CODE))
        except ValueError:
            return values  # the field's own validation says what is wrong
        return {**cls.BY_RECIPE[recipe], **values}


class CleverRecipe(DinoRecipe):
    """CLeVER over DINO: the split of the features and the two penalties (paper, section 3.2, Eq. 9-13)."""

    BY_RECIPE: ClassVar[dict[Recipe, dict[str, Any]]] = {
        Recipe.CODE: {**DinoRecipe.BY_RECIPE[Recipe.CODE], "orthogonality": "cosine"},
        Recipe.PAPER: {**DinoRecipe.BY_RECIPE[Recipe.PAPER], "orthogonality": "dot"},  # Eq. 11
    }

    split_ratio: float = Field(0.8, gt=0, lt=1)  # share of the features that is z_IR (Fig. 3a)
    projection_dim: int = Field(65536, ge=2)  # output dimensions of h_EF (Fig. 3b)
    base_weight: float = Field(1.0, ge=0)  # alpha of Eq. 13
    orth_weight: float = Field(1.0, ge=0)  # beta of Eq. 13
    preg_weight: float = Field(0.001, ge=0)  # lambda of Eq. 13 (Fig. 3c)
    orthogonality: str = Field(pattern="^(cosine|dot)$")


RECIPES: dict[Method, type[DinoRecipe]] = {Method.DINO: DinoRecipe, Method.CLEVER: CleverRecipe}
AnyRecipe = CleverRecipe | DinoRecipe
