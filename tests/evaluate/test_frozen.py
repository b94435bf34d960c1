"""Backbones as they are read: the right weights, in eval mode, or an error that names what is wrong."""

import pytest
import torch

from clever.evaluate.frozen import WeightsError, probe_features, teacher_backbone, untrained_backbone
from clever.names import Precision


def rewrite(path, **changes):
    document = torch.load(path, weights_only=True)
    state = {**document["backbone"], **changes}
    state = {name: value for name, value in state.items() if value is not None}
    torch.save({**document, "backbone": state}, path)


def test_the_weights_in_the_file_are_the_ones_read(planted, probe_spec):
    backbone = teacher_backbone(probe_spec.shape, planted)
    assert backbone.gain.item() == 2.0
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_missing_and_unexpected_parameters_are_named(planted, probe_spec):
    rewrite(planted, gain=None, stem=torch.zeros(2))
    with pytest.raises(WeightsError, match="missing: gain; unexpected: stem"):
        teacher_backbone(probe_spec.shape, planted)


def test_a_parameter_of_another_size_is_named_with_both_sizes(planted, probe_spec):
    rewrite(planted, gain=torch.zeros(3))
    with pytest.raises(WeightsError, match=r"gain \(3,\) instead of \(1,\)"):
        teacher_backbone(probe_spec.shape, planted)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8])
def test_a_parameter_of_another_kind_of_number_is_named_with_both(planted, probe_spec, dtype):
    rewrite(planted, gain=torch.ones(1, dtype=dtype))
    with pytest.raises(WeightsError, match=f"of another kind: gain {dtype} instead of torch.float32"):
        teacher_backbone(probe_spec.shape, planted)


def test_weights_of_another_shape_are_refused(planted, probe_spec):
    with pytest.raises(WeightsError, match="wanted is"):
        teacher_backbone(probe_spec.shape.model_copy(update={"image_size": 16}), planted)


def test_a_file_that_is_not_there_or_damaged_is_named(planted, probe_spec):
    for name in ("absent.pt", "n" * 300):  # the second is longer than a name may be
        with pytest.raises(WeightsError, match=f"{name} does not exist"):
            teacher_backbone(probe_spec.shape, planted.with_name(name))
    planted.write_bytes(planted.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"weights\.pt cannot be read"):
        teacher_backbone(probe_spec.shape, planted)


def test_a_file_of_something_else_is_refused(planted, probe_spec):
    torch.save({"gain": torch.zeros(1)}, planted)
    with pytest.raises(WeightsError, match="lacks"):
        teacher_backbone(probe_spec.shape, planted)


def test_an_untrained_backbone_follows_its_seed_and_leaves_the_global_generator_alone(planted, probe_spec):
    state = torch.get_rng_state()
    first, again, other = (untrained_backbone(probe_spec.shape, seed).gain for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("precision", Precision)
def test_features_are_float32_whatever_the_precision_of_the_backbone(precision):
    class Product(torch.nn.Module):
        def probe_features(self, images):
            self.computed_in = (images.flatten(1) @ torch.eye(12)).dtype
            return images.flatten(1) @ torch.eye(12)

    product = Product()
    assert probe_features(product, torch.ones(2, 3, 2, 2), precision).dtype == torch.float32
    wanted = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
    assert product.computed_in == wanted[precision]
