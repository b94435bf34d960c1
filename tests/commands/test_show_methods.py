"""What `clever show methods` lists: every method under both recipes, CLeVER once over each of its bases."""

from clever.names import Method, Recipe
from clever.recipes import BASES, CleverByolRecipe
from tests.commands.conftest import clever


def test_every_method_is_listed_under_both_recipes_and_clever_over_each_base() -> None:
    listed = clever("show", "methods", "--json").json
    expected = [(m, b) for m in Method for b in (BASES if m == Method.CLEVER else [None])]
    pairs = [(method, base, recipe) for method, base in expected for recipe in Recipe]
    assert sorted((e["name"], str(e["base"]), e["recipe"]) for e in listed) == sorted(
        (method, str(base), recipe) for method, base, recipe in pairs
    )
    (byol,) = [e for e in listed if (e["base"], e["recipe"]) == ("byol", "paper")]
    assert byol["hyper"] == CleverByolRecipe(recipe="paper").model_dump(mode="json")


def test_people_read_which_base_and_where_a_vmamba_differs() -> None:
    words = " ".join(clever("show", "methods").out.split())
    assert all(f"clever over {base}" in words for base in BASES)
    assert "a VMamba's is 0.2" in words
