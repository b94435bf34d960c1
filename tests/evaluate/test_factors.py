"""Where the features hold a transform's parameter: planted in one part, in none, or in features that say nothing."""

import math
import re

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from clever.computing import BackboneShape
from clever.data.ops import MEAN, STD
from clever.data.rng import keys
from clever.errors import RequestError
from clever.evaluate import factor_probes as probes
from clever.evaluate import factors as module
from clever.evaluate import frozen
from clever.evaluate.factor_transforms import coloured, drawn, obstacle, span, strongest, transformed
from clever.evaluate.factors import factors
from clever.evaluations import FactorsSpec
from clever.names import Backbone, Factor, Representation, Stem
from clever.spec import Task
from clever.train.checkpoint import Preempted

SIDE = 32
SHAPE = BackboneShape(name=Backbone.RESNET_NANO, image_size=SIDE, stem=Stem.SMALL)
UNCHANGED = {
    Factor.ROTATION: 0.0, Factor.CROP_SCALE: 1.0, Factor.BRIGHTNESS: 1.0, Factor.CONTRAST: 1.0,
    Factor.SATURATION: 1.0, Factor.HUE: 0.0, Factor.BLUR: 0.01, Factor.ELASTIC: 0.0, Factor.FLIP: 0.0,
    Factor.SOLARISATION: 0.0,
}  # fmt: skip


class Textures:
    """Images of noise with the same mean light; grey ones where that is asked for."""

    name, classes = "textures", ("one",)

    def __init__(self, split: str, count: int, grey: bool = False) -> None:
        generator = torch.Generator().manual_seed(len(split))
        pixels = torch.randint(70, 140, (count, 1 if grey else 3, SIDE, SIDE), generator=generator)
        self._images = pixels.expand(-1, 3, -1, -1).to(torch.uint8)
        self.split, self.labels = split, torch.zeros(count, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Tensor:
        return self._images[index]


class PlantedBackbone(nn.Module):
    """Three features that brightness leaves alone (invariant), and the mean light (equivariant)."""

    dim = probe_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def probe_features(self, images: Tensor) -> Tensor:
        light = images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        mean = light.mean((1, 2, 3)).unsqueeze(1)
        parts = (light[:, :, :16].mean((1, 2, 3)), light[..., :16].mean((1, 2, 3)), light[:, 0].mean((1, 2)))
        shares = torch.stack(parts)
        return torch.cat([shares.T / mean.clamp(min=1e-6), self.gain * mean], dim=1)

    def columns(self, representation: Representation, split_ratio: float | None, strict: bool) -> Tensor:
        return {
            Representation.FULL: torch.arange(4),
            Representation.INVARIANT: torch.arange(3),
            Representation.EQUIVARIANT: torch.tensor([3]),
        }[representation]


SPEC = FactorsSpec(dataset="textures", shape=SHAPE, split_ratio=0.75, crop_size=SIDE, resize=SIDE, seed=3)


@pytest.fixture
def spec() -> FactorsSpec:
    return SPEC


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "weights.pt"

    def run(spec=SPEC, *, train=None, test=None, gain=1.0, log=lambda *_: None, **changes):
        torch.save({"backbone": {"gain": torch.tensor([gain])}, "shape": SHAPE.model_dump(mode="json")}, path)
        images = (train or Textures("train", 60), test or Textures("test", 30))
        return factors(spec, path, *images, log, device="cpu", **changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "build_backbone", lambda shape: PlantedBackbone())
        yield run


@pytest.fixture(scope="module")
def measured(run):
    """One measurement for several tests, and what it logged."""
    told = []
    result = run(train=Textures("train", 240), test=Textures("test", 120), log=lambda *given: told.append(given))
    return result, told


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the whole measurement --------------------------------------------------------------------------------------------


def test_a_factor_is_found_in_the_part_that_holds_it_and_in_no_other(measured):
    result, _ = measured
    scores, change = result["scores"]["brightness"], result["change"]["brightness"]
    assert list(scores) == [name.value for name in Representation]
    assert scores["equivariant"]["r2"] > 0.99
    assert scores["full"]["r2"] > 0.99
    assert abs(scores["invariant"]["r2"]) < 0.2
    assert change["invariant"]["relative"] == pytest.approx(0, abs=1e-5)
    assert change["equivariant"]["relative"] == pytest.approx(0.4, abs=1e-4)
    assert (result["images"], result["images_train"]) == (result["coloured"], result["coloured_train"]) == (120, 240)


def test_every_factor_is_measured_and_choices_are_scored_by_auc(measured):
    result, _ = measured
    assert list(result["scores"]) == list(result["change"]) == [name.value for name in Factor]
    for name, cells in result["scores"].items():
        metric = "auc" if name in ("flip", "solarisation") else "r2"
        assert all(list(cell) == [metric, "as_few"] and math.isfinite(cell[metric]) for cell in cells.values())
    assert result["scores"]["solarisation"]["full"]["auc"] == pytest.approx(1)  # it lightens the darker half


def test_all_representations_are_also_read_from_equally_many_columns(measured, spec):
    cells = measured[0]["scores"]["flip"]
    assert measured[0]["columns"] == {"full": 4, "invariant": 3, "equivariant": 1}
    assert cells["equivariant"]["as_few"] == cells["equivariant"]["auc"]
    assert cells["invariant"]["as_few"] != cells["invariant"]["auc"]
    columns = {"full": torch.arange(10, 40), "equivariant": torch.tensor([31, 12, 25])}
    few = module._as_few(spec, columns)
    assert sorted(few["equivariant"].tolist()) == [12, 25, 31]
    assert len(few["full"].unique()) == 3 and set(few["full"].tolist()) <= set(range(10, 40))


def test_batch_size_does_not_matter(run):
    first, again = run(batch_size=7), run(batch_size=64)
    for table in ("scores", "change"):
        for name, cells in first[table].items():
            for head, cell in cells.items():
                assert cell == pytest.approx(again[table][name][head], rel=1e-4, abs=1e-5)


def test_a_cap_takes_so_many_images_drawn_by_the_seed(run, spec):
    capped = spec.model_copy(update={"images_train": 40, "images_test": 20})
    result = run(capped)
    assert (result["images_train"], result["images"]) == (40, 20)
    rows = module._Chosen.draw(capped, Textures("train", 60)).rows
    assert len(rows.unique()) == 40
    assert rows.tolist() != sorted(rows.tolist())
    assert rows.tolist() == module._Chosen.draw(spec, Textures("train", 60)).rows[:40].tolist()


def test_an_image_gets_a_value_of_its_own_in_each_split_factor_and_seed(spec):
    found = {}
    for seed in (3, 4):
        own = spec.model_copy(update={"seed": seed})
        for split in ("train", "test"):
            chosen = module._Chosen.draw(own, Textures(split, 30))
            for factor in Factor:
                found[seed, split, factor] = chosen.keys(own, factor, chosen.rows.argsort())
    assert len(torch.cat(list(found.values())).unique()) == 30 * len(found)


def test_the_change_between_images_is_a_share_of_the_distance_of_different_images(measured, spec):
    cell = measured[0]["change"]["flip"]["invariant"]
    test = Textures("test", 120)
    pixels = torch.stack([test.image(index) for index in range(120)]) / 255
    features, mirrored = [
        PlantedBackbone().probe_features(module.normalise(images))[:, :3].detach().double()
        for images in (pixels, pixels.flip(-1))
    ]
    moved = (mirrored - features).norm(dim=1)
    ordered = features[module._Chosen.draw(spec, test).rows]
    apart = torch.stack([(ordered[place] - ordered[place - 1]).norm() for place in range(120)]).mean()
    assert cell["relative"] == pytest.approx((moved / features.norm(dim=1)).mean().item(), rel=1e-4)
    assert cell["between_images"] == pytest.approx((moved.mean() / apart).item(), rel=1e-4)
    assert cell["strength"] == 1


def test_a_transform_that_does_nothing_changes_nothing(run, monkeypatch):
    monkeypatch.setattr(module, "strongest", lambda _, factor: UNCHANGED.get(factor, 0.0))
    for cells in run()["change"].values():
        for cell in cells.values():
            assert cell["relative"] == pytest.approx(0, abs=1e-5)


def test_a_collapsed_part_says_nothing_and_says_so(run):
    result = run(gain=0.0)
    for name, cells in result["scores"].items():
        known = {"auc": 0.5, "as_few": 0.5} if name in ("flip", "solarisation") else {"r2": 0.0, "as_few": 0.0}
        assert cells["equivariant"] == {**known, "note": module.CONSTANT_NOTE}
        assert "note" not in cells["full"]
    for cells in result["change"].values():
        cell = cells["equivariant"]
        assert (cell["relative"], cell["between_images"], cell["note"]) == (None, None, module.CONSTANT_NOTE)


def test_of_grey_images_neither_saturation_nor_hue_is_measured(run):
    result = run(train=Textures("train", 60, grey=True), test=Textures("test", 30, grey=True))
    assert (result["coloured"], result["coloured_train"]) == (0, 0)
    for name in Factor:
        notes = {cell.get("note") for cell in result["scores"][name].values()}
        assert notes == ({"n/a: images without colour"} if name in ("saturation", "hue") else {None})
    assert result["change"]["hue"]["full"]["relative"] is None
    assert result["scores"]["hue"]["full"]["r2"] is None


def test_a_method_without_a_split_has_the_full_features_alone(run, spec):
    result = run(spec.model_copy(update={"split_ratio": None}))
    assert all(list(cells) == ["full"] for cells in result["scores"].values())


def test_all_numbers_are_logged_under_plain_names(measured):
    result, told = measured
    ((step, values),) = told
    assert step == 1
    assert values["r2/full/rotation"] == result["scores"]["rotation"]["full"]["r2"]
    assert values["relative/invariant/hue"] == result["change"]["hue"]["invariant"]["relative"]
    assert all(re.fullmatch(r"[A-Za-z0-9_\-. /]+", name) and math.isfinite(each) for name, each in values.items())


def test_progress_counts_the_batches_of_both_splits(run):
    told = []
    run(batch_size=20, progress=told.append)
    assert [(entry["step"], entry["of"]) for entry in told] == [(step, 5) for step in range(1, 6)]


def test_too_few_images_and_a_request_to_stop_end_it(run):
    with pytest.raises(RequestError, match="9 test images of `textures` are too few"):
        run(test=Textures("test", 9))
    with pytest.raises(Preempted):
        run(should_stop=lambda: True)


# --- the transforms ---------------------------------------------------------------------------------------------------


def test_values_fill_their_span_and_choices_are_even(spec):
    for factor in Factor:
        low, high = span(spec, factor)
        values = drawn(spec, factor, keys(1, torch.arange(2000)))
        assert low - 0.02 <= values.min() and values.max() <= high + 0.02
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.04 * (high - low))
        assert values.unique().numel() > (1 if factor in ("flip", "solarisation") else 8)


@pytest.mark.parametrize("factor", UNCHANGED)
def test_the_value_that_changes_nothing_leaves_the_images_alone(spec, factor):
    images = torch.stack([Textures("test", 3).image(index) for index in range(3)]) / 255
    values = torch.full((3,), UNCHANGED[factor])
    torch.testing.assert_close(transformed(spec, factor, images, values, torch.arange(3)), images, atol=1e-5, rtol=0)


def test_a_crop_shows_the_place_and_the_size_that_its_value_says(spec):
    ramp = ((torch.arange(SIDE) + 0.5) / SIDE).mul(255).round() / 255
    images = torch.stack((ramp.expand(SIDE, SIDE), ramp.view(-1, 1).expand(SIDE, SIDE), torch.zeros(SIDE, SIDE)))
    images, own = images.expand(20, -1, -1, -1), keys(0, torch.arange(20))
    for channel, factor in enumerate((Factor.CROP_X, Factor.CROP_Y)):
        values = drawn(spec, factor, own)
        crops = transformed(spec, factor, images, values, own)
        torch.testing.assert_close(crops[:, channel].mean((1, 2)), 0.5 + values, atol=0.01, rtol=0)
        other = crops[:, 1 - channel].mean((1, 2))
        assert other.max() - other.min() < 1e-5
    shares = drawn(spec, Factor.CROP_SCALE, own)
    crops = transformed(spec, Factor.CROP_SCALE, images, shares, own)
    width = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]) * SIDE / (SIDE - 1)
    torch.testing.assert_close(width, shares.sqrt(), atol=0.05, rtol=0)


def test_the_strongest_is_what_differs_most(spec):
    found = {factor: strongest(spec, factor) for factor in Factor}
    assert found[Factor.ROTATION] == 90
    assert found[Factor.CROP_SCALE] == 0.25
    assert found[Factor.CROP_X] == pytest.approx((SIDE - 23) / 2 / SIDE, abs=1 / SIDE)
    assert (found[Factor.BRIGHTNESS], found[Factor.HUE]) == pytest.approx((1.4, 0.1))
    assert found[Factor.BLUR] == pytest.approx(2 * SIDE / 224)


def test_images_too_small_for_a_transform_are_named(spec):
    small = spec.model_copy(update={"crop_size": 16, "resize": 16})
    assert {factor for factor in Factor if obstacle(small, factor)} == {Factor.BLUR}
    tiny = spec.model_copy(update={"crop_size": 2, "resize": 2, "crop_scale": (0.9, 1.0), "crop_area": 0.9})
    assert {factor for factor in Factor if obstacle(tiny, factor)} > {Factor.CROP_X, Factor.CROP_Y, Factor.CROP_SCALE}
    assert not any(obstacle(spec, factor) for factor in Factor)


def test_an_image_has_colour_where_its_channels_differ():
    images = torch.full((3, 3, 4, 4), 0.5)
    images[1, 0] = 0.6
    images[2, 0, 0, 0] = 0.6
    assert coloured(images).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation": 100}, {"crop_scale": (0.5, 1.5)}, {"crop_scale": (1.0, 1.0)}, {"blur": (2.0, 1.0)}, {"hue": 0.6},
        {"images_test": 0},
    ],
)  # fmt: skip
def test_ranges_that_make_no_sense_are_refused(spec, wrong):
    with pytest.raises(ValidationError):
        FactorsSpec.model_validate({**spec.model_dump(), **wrong})


def test_the_specification_is_read_back_from_its_file(spec):
    task = Task(spec=spec, needs=("0" * 16,))
    assert Task.from_document(task.document) == task
    assert task.slug == "factors-resnet_nano-textures"


# --- the probes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, width", [(80, 7), (20, 40)])
def test_ridge_is_that_of_scikit_learn(count, width):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    features, asked, targets = random(count, width) * 3 + 5, random(11, width, seed=1), random(count, seed=2) + 4
    features[:, 2] = 7.5  # says nothing
    scaler = StandardScaler().fit(features.double())
    found = probes.ridge(features, targets, asked, [0.5, 1e-3])
    for predictions, strength in zip(found, (0.5, 1e-3), strict=True):
        model = Ridge(alpha=strength * count).fit(scaler.transform(features.double())[:, _but(2, width)], targets)
        expected = model.predict(scaler.transform(asked.double())[:, _but(2, width)])
        torch.testing.assert_close(predictions, torch.from_numpy(expected).double(), atol=1e-5, rtol=1e-5)


def _but(column: int, width: int) -> list[int]:
    return [each for each in range(width) if each != column]


def test_a_value_is_read_where_it_is_and_not_where_it_is_not():
    features, targets = random(300, 5), random(300, seed=1)
    features[:, 3] = 2 * targets - 1
    train, test = slice(0, 200), slice(200, 300)
    assert probes.read_value(features[train], targets[train], features[test], targets[test]) > 0.999
    features[:, 3] = 0
    assert abs(probes.read_value(features[train], targets[train], features[test], targets[test])) < 0.1


def test_a_choice_is_read_where_it_is_and_not_where_it_is_not():
    features, targets = random(300, 5), (random(300, seed=1) > 0).float()
    train, test = slice(0, 200), slice(200, 300)
    assert probes.read_choice(features[train], targets[train], features[test], targets[test]) == pytest.approx(
        0.5, abs=0.15
    )
    features[:, 3] += 8 * targets
    assert probes.read_choice(features[train], targets[train], features[test], targets[test]) > 0.99


def test_auc_and_r_squared_are_those_of_scikit_learn():
    from sklearn.metrics import r2_score, roc_auc_score

    values, truths = (random(50) * 2).round(), (random(50, seed=1) > 0.3).float()  # with many ties
    assert probes.auc(values, truths) == pytest.approx(roc_auc_score(truths, values))
    assert probes.r_squared(values, random(50, seed=2)) == pytest.approx(r2_score(random(50, seed=2), values))
    assert probes.auc(values, torch.ones(50)) == 0.5
    assert probes.r_squared(values, torch.ones(50)) == 0.0


def test_the_strength_is_chosen_on_training_images_and_all_of_them_are_fitted_with_it():
    calls = []

    def fit(train, targets, test, strengths):
        calls.append((len(train), test, list(strengths)))
        return torch.stack([test[:, 0] if strength == 2.0 else -test[:, 0] for strength in strengths])

    train, test = random(50, 1), random(10, 1, seed=1)
    probes._read(fit, probes.r_squared, (3.0, 2.0, 1.0), train, train[:, 0], test, -test[:, 0])
    assert [(count, asked) for count, _, asked in calls] == [(40, [3.0, 2.0, 1.0]), (50, [2.0])]
    assert torch.equal(calls[0][1], train[:10])
    assert torch.equal(calls[1][1], test)


def test_features_are_standardised_by_the_training_images():
    train, test = random(40, 3) * 5 + 2, random(9, 3, seed=1)
    first, second = probes.standardised(train, test)
    assert first.dtype == torch.float64
    torch.testing.assert_close(first.mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(3).double())
    expected = (test - train.mean(0)).double() / train.double().std(0, correction=0)
    torch.testing.assert_close(second, expected, atol=1e-5, rtol=0)


def test_features_that_vary_by_rounding_alone_are_collapsed():
    assert probes.collapsed(features := torch.full((20, 4), 3.0) + 1e-6 * random(20, 4))
    features[:, 1] += 0.01 * random(20, seed=1)
    assert not probes.collapsed(features)
