"""Hyper-parameters: complete, frozen, and what a recipe changes."""

import pytest
from pydantic import ValidationError

from clever.names import Method, Recipe
from clever.recipes import (
    BASES,
    RECIPES,
    ByolRecipe,
    CleverRecipe,
    DdclPregRecipe,
    DdclRecipe,
    DebiasedRecipe,
    DinoRecipe,
    Frozen,
    MocoV1Recipe,
    MocoV2Recipe,
    SimclrRecipe,
    SimsiamRecipe,
    TwoViewRecipe,
    recipe_of,
)


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


def test_dumps_of_dino_and_clever_have_the_keys_that_identities_were_taken_from():
    dino = {
        "recipe", "optimiser", "learning_rate", "min_learning_rate", "sgd_momentum", "weight_decay",
        "weight_decay_end", "warmup_epochs", "clip", "freeze_last_layer_epochs", "ema", "ema_end",
        "teacher_temperature", "student_temperature", "center_momentum", "drop_path", "head_hidden",
        "head_bottleneck", "head_batch_norm", "prototypes",
    }  # fmt: skip
    own = {"split_ratio", "projection_dim", "base_weight", "orth_weight", "preg_weight", "orthogonality"}
    assert set(DinoRecipe().model_dump()) == dino
    assert set(CleverRecipe().model_dump()) == dino | own
    assert set(CleverRecipe(decay_all=True).model_dump()) == dino | own | {"decay_all"}


class Grown(Frozen):
    ADDED_LATER = frozenset({"later", "empty"})

    first: int = 1
    later: float = 0.5
    empty: tuple[int, ...] = ()


def test_a_field_that_was_added_later_is_left_out_while_it_has_its_default():
    assert Grown().model_dump() == Grown(later=0.5, empty=[]).model_dump(mode="json") == {"first": 1}
    assert Grown(later=0.6).model_dump(mode="json") == {"first": 1, "later": 0.6}
    assert Grown.model_validate_json(Grown(later=0.6).model_dump_json()) == Grown(later=0.6)
    assert Grown.model_validate(Grown().model_dump()) == Grown()


def test_names_that_methods_share_mean_the_same_values_everywhere():
    """A profile and `--set` give one value to all methods: it must be right or wrong for all of them."""
    seen: dict[str, tuple] = {}
    for model in [recipe_of(method, {"base": base}) for method in Method for base in BASES]:
        for name, info in model.model_fields.items():
            allowed = (str(info.annotation), sorted(map(str, info.metadata)))
            assert seen.setdefault(name, allowed) == allowed, f"{model.__name__}.{name}"


def test_every_recipe_is_complete_without_being_told_anything_and_hides_nothing():
    for method in Method:
        for base in BASES if method == Method.CLEVER else [None]:
            values = {"base": base} if base else {}
            for recipe in Recipe:
                model = recipe_of(method, values)
                complete = model.model_validate({**values, "recipe": recipe})
                if issubclass(model, TwoViewRecipe):
                    assert set(complete.model_dump()) == set(model.model_fields) - model.ADDED_LATER


def test_the_values_of_the_methods_of_two_views_are_those_of_their_sources():
    def training(recipe) -> tuple:
        return recipe.optimiser, recipe.learning_rate, recipe.weight_decay, recipe.schedule, recipe.warmup_epochs

    simsiam = SimsiamRecipe()
    assert training(simsiam) == ("sgd", 0.05, 1e-4, "epoch_cosine", 0) and simsiam.decay_all
    assert (simsiam.head_hidden, simsiam.head_outputs, simsiam.predictor_hidden) == (2048, 2048, 512)
    assert training(SimclrRecipe()) == ("lars", 0.3, 1e-4, "cosine", 10) and not SimclrRecipe().decay_all
    assert training(DebiasedRecipe()) == ("adam", 1e-3, 1e-6, "constant", 0) and DebiasedRecipe().decay_all
    assert (DebiasedRecipe().temperature, DebiasedRecipe().positive_share) == (0.5, 0.1)
    byol = ByolRecipe()
    assert training(byol) == ("lars", 0.45, 1e-6, "cosine", 10) and (byol.ema, byol.ema_end) == (0.99, 1.0)
    assert (byol.head_hidden, byol.head_outputs, byol.predictor_hidden) == (4096, 256, 4096)
    assert training(MocoV1Recipe()) == ("sgd", 0.03, 1e-4, "steps", 0)
    assert training(MocoV2Recipe()) == ("sgd", 0.06, 1e-4, "epoch_cosine", 0)
    assert (MocoV1Recipe().temperature, MocoV2Recipe().temperature) == (0.07, 0.2)
    assert (MocoV1Recipe().queue, MocoV1Recipe(recipe="paper").queue, MocoV2Recipe().queue) == (16384, 65536, 65536)
    assert (MocoV2Recipe().ema, MocoV2Recipe(recipe="paper").learning_rate) == (0.999, 0.03)


def test_ddcl_is_simsiam_with_a_split_and_its_two_forms_differ_in_one_weight():
    ddcl, preg = DdclRecipe(), DdclPregRecipe()
    assert (ddcl.split_ratio, ddcl.base_weight, ddcl.orth_weight, ddcl.preg_weight) == (0.8, 1.0, 1.0, 0.0)
    assert (ddcl.warmup_epochs, ddcl.extra_epochs) == (30, 0)
    assert (ddcl.zero_init_residual, ddcl.projection_dim) == (False, 2048)
    assert preg.model_dump() == {**ddcl.model_dump(), "preg_weight": 0.001}
    assert differences(DdclRecipe) == {"recipe": ("code", "paper"), "orthogonality": ("cosine", "dot")}
    assert differences(MocoV1Recipe) == {"recipe": ("code", "paper"), "queue": (16384, 65536)}


def test_clever_over_a_base_is_the_recipe_of_the_base_and_the_split():
    split = {"base", "split_ratio", "projection_dim", "base_weight", "orth_weight", "preg_weight", "orthogonality"}
    for base in BASES[1:]:
        for recipe in Recipe:
            own = RECIPES[base](recipe=recipe).model_dump()
            over = recipe_of(Method.CLEVER, {"base": base})(recipe=recipe).model_dump()
            assert {key: over[key] for key in own} == own
            assert set(over) - set(own) == split
            assert over["projection_dim"] == own["head_outputs"]
            assert over["orthogonality"] == ("cosine" if recipe == Recipe.CODE else "dot")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        DinoRecipe().clip = 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": -1}, {"optimiser": "adan"}, {"recipe": "coed"}, {"split_ratio": 1.0}, {"split_ratio": 0},
        {"prototypes": 1}, {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"ema": 1.1}, {"bogus": 1},
        {"orthogonality": "cos"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        CleverRecipe(**wrong)
