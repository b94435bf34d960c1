"""Hyper-parameters: complete, frozen, and what a recipe changes."""

import pytest
from pydantic import ValidationError

from clever.names import Method, Recipe
from clever.recipes import RECIPES, CleverRecipe, DinoRecipe


def differences(model: type[DinoRecipe], **given: object) -> dict[str, tuple]:
    code = model(recipe=Recipe.CODE, **given).model_dump(mode="json")
    paper = model(recipe=Recipe.PAPER, **given).model_dump(mode="json")
    return {key: (code[key], paper[key]) for key in code if code[key] != paper[key]}


def test_the_papers_recipe_for_dino_changes_optimiser_and_rate_and_nothing_else():
    assert differences(DinoRecipe) == {
        "recipe": ("code", "paper"), "optimiser": ("adamw", "sgd"), "learning_rate": (5e-4, 1e-3),
    }  # fmt: skip


def test_the_papers_recipe_for_clever_changes_the_orthogonality_too():
    assert differences(CleverRecipe) == {
        "recipe": ("code", "paper"), "optimiser": ("adamw", "sgd"), "learning_rate": (5e-4, 1e-3),
        "orthogonality": ("cosine", "dot"),
    }  # fmt: skip


def test_a_value_that_is_given_wins_over_the_recipe():
    assert differences(CleverRecipe, learning_rate=0.1, orthogonality="dot") == {
        "recipe": ("code", "paper"), "optimiser": ("adamw", "sgd"),
    }  # fmt: skip


def test_the_values_are_those_of_the_released_code():
    recipe = CleverRecipe()
    assert (recipe.optimiser, recipe.learning_rate, recipe.min_learning_rate) == ("adamw", 5e-4, 1e-6)
    assert (recipe.weight_decay, recipe.weight_decay_end, recipe.warmup_epochs, recipe.clip) == (0.04, 0.4, 10, 3.0)
    assert (recipe.ema, recipe.ema_end, recipe.center_momentum, recipe.freeze_last_layer_epochs) == (0.996, 1.0, 0.9, 1)
    assert (recipe.teacher_temperature, recipe.student_temperature, recipe.drop_path) == (0.04, 0.1, 0.1)
    assert (recipe.head_hidden, recipe.head_bottleneck, recipe.head_batch_norm) == (2048, 256, False)
    assert recipe.prototypes == recipe.projection_dim == 65536
    assert (recipe.split_ratio, recipe.base_weight, recipe.orth_weight, recipe.preg_weight) == (0.8, 1.0, 1.0, 0.001)


def test_every_method_has_a_recipe_and_dino_has_no_split():
    assert set(RECIPES) == set(Method)
    assert "split_ratio" not in RECIPES[Method.DINO].model_fields
    assert issubclass(CleverRecipe, DinoRecipe)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        DinoRecipe().clip = 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": -1}, {"optimiser": "adam"}, {"recipe": "coed"}, {"split_ratio": 1.0}, {"split_ratio": 0},
        {"prototypes": 1}, {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"ema": 1.1}, {"bogus": 1},
        {"orthogonality": "cos"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        CleverRecipe(**wrong)
