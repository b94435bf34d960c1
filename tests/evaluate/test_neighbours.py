"""k-NN and retrieval: against formulas in NumPy and cases by hand; and a monitor that leaves no trace."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clever.catalog import DataError, Locations
from clever.data.datasets import open_images
from clever.errors import RequestError
from clever.evaluate import neighbours
from clever.evaluate.neighbours import Monitor, evaluating, knn_accuracy, retrieval
from clever.methods import build_method
from clever.spec import PretrainSpec
from tests.train.small import nano

SPEC = nano("vit_nano", "dino", epochs=5)


def clustered(count: int, seed: int, classes: int = 4, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Features (count, dim), of lengths that must not matter, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    noise = 1.2 * torch.randn(count, dim, generator=generator)
    return (centres[labels] + noise) * (0.1 + torch.rand(count, 1, generator=generator)), labels


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def plain_knn(train: Tensor, known: Tensor, test: Tensor, labels: Tensor, k: int) -> float:
    """Vote by vote, as DINO writes it down."""
    right = 0
    for features, label in zip(test.double().numpy(), labels.tolist(), strict=True):
        cosines = [cosine(features, each) for each in train.double().numpy()]
        near = sorted(zip(cosines, range(len(cosines)), strict=True), reverse=True)
        votes: dict[int, float] = {}
        for similarity, place in near[:k]:
            own = int(known[place])
            votes[own] = votes.get(own, 0.0) + float(np.exp(similarity / 0.07))
        right += max(votes, key=votes.__getitem__) == label
    return right / len(test)


def plain_retrieval(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Image by image: the precision at every place of the ranking at which one of the class stands."""
    values, recalls, precisions = features.double().numpy(), [], []
    for own, query in enumerate(values):
        cosines = [cosine(query, each) for each in values]
        others = sorted((other for other in range(len(values)) if other != own), key=lambda other: -cosines[other])
        places = [rank for rank, other in enumerate(others, 1) if labels[other] == labels[own]]
        if places:
            recalls.append(places[0] == 1)
            precisions.append(np.mean([number / place for number, place in enumerate(places, 1)]))
    return float(np.mean(recalls)), float(np.mean(precisions))


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_k_nn_is_that_of_the_formula(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (train, known), (test, labels) = clustered(60, 1), clustered(40, 2)
    expected = plain_knn(train, known, test, labels, k)
    assert 0.3 < expected < 1
    for rows in (7, 512):
        monkeypatch.setattr(neighbours, "ROWS", rows)
        assert knn_accuracy(train, known, test, labels, neighbours=k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_k_nn_is_that_of_scikit_learn(k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    (train, known), (test, labels) = clustered(200, 5), clustered(150, 6)
    model = KNeighborsClassifier(n_neighbors=k, weights=votes, metric="cosine").fit(train.double(), known)
    found = knn_accuracy(train, known, test, labels, neighbours=k)
    assert found == pytest.approx(model.score(test.double(), labels)) and 0.3 < found < 1


def test_mean_average_precision_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score
    from sklearn.metrics.pairwise import cosine_similarity

    features, labels = clustered(60, 7)
    cosines, expected = cosine_similarity(features.double()), []
    for own in range(len(features)):
        others = np.arange(len(features)) != own
        expected.append(average_precision_score((labels == labels[own]).numpy()[others], cosines[own][others]))
    assert retrieval(features, labels)[1] == pytest.approx(np.mean(expected))


def test_a_near_neighbour_outvotes_several_far_ones() -> None:
    """One at a cosine of .9 has as many votes as exp(.1 / .07) = 4.2 at .8, and as exp(.05 / .07) = 2.04 at .85."""
    angles = np.arccos([0.9, 0.8, 0.8, 0.8])
    train = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], 1), dtype=torch.float32)
    test, known = torch.tensor([[1.0, 0.0]]), torch.tensor([0, 1, 1, 1])
    assert knn_accuracy(train, known, test, torch.tensor([0]), neighbours=20) == 1
    nearer = torch.cat([train[:1], torch.tensor([[0.85, (1 - 0.85**2) ** 0.5]] * 3)])
    assert knn_accuracy(nearer, known, test, torch.tensor([1]), neighbours=20) == 1


def test_equal_votes_go_to_the_lower_class_and_equal_neighbours_count_as_stored() -> None:
    same = torch.ones(4, 3)
    query, labels = torch.ones(1, 3), torch.tensor([1])
    assert knn_accuracy(same, torch.tensor([2, 1, 2, 1]), query, labels, neighbours=4) == 1
    assert knn_accuracy(same, torch.tensor([2, 1, 1, 1]), query, labels, neighbours=1) == 0
    assert knn_accuracy(same, torch.tensor([1, 2, 2, 2]), query, labels, neighbours=1) == 1


def test_a_test_class_without_training_images_is_wrong_and_no_error() -> None:
    assert knn_accuracy(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.tensor([0, 7]), neighbours=1) == 0.5


def test_retrieval_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clustered(50, 3)
    expected = plain_retrieval(features, labels)
    assert 0.3 < expected[1] < expected[0] < 1
    for rows in (7, 512):
        monkeypatch.setattr(neighbours, "ROWS", rows)
        assert retrieval(features, labels) == pytest.approx(expected)


def test_retrieval_by_hand() -> None:
    """On a quarter circle at 0, 10, 30 and 60 degrees, of the classes a b a c: only the two a ask."""
    angles = np.radians([0, 10, 30, 60])
    features = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], 1), dtype=torch.float32)
    # 0 degrees: b, a, c: precision 1/2 at the a. 30 degrees: b (20 away), then a and c (30 away, and a stored first).
    recall, precision = retrieval(features, torch.tensor([0, 1, 0, 2]))
    assert recall == 0 and precision == pytest.approx(0.5)
    assert retrieval(features, torch.tensor([0, 0, 1, 1])) == pytest.approx((0.75, (1 + 1 + 1 / 3 + 1) / 4))


def test_features_that_are_all_the_same_rank_by_their_place() -> None:
    recall, precision = retrieval(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))
    assert recall == 0.5 and precision == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)


def monitor(spec: PretrainSpec = SPEC, images: int = 40, **how) -> Monitor:
    how = {"every_epochs": 2, "neighbours": 5, "device": "cpu", **how}
    return Monitor.open(spec, Locations(), images, **how)


@pytest.fixture
def backbone() -> nn.Module:
    return build_method(SPEC).probe_backbone()


def test_it_watches_every_so_many_epochs_and_the_last_one(backbone: nn.Module) -> None:
    watch = monitor()
    due = [epoch for epoch in range(1, 6) if watch(backbone, epoch)]
    assert due == [2, 4, 5]
    numbers = watch(backbone, 5)
    assert set(numbers) == {"knn/top1", "retrieval/recall1", "retrieval/map"}
    assert all(0 < value <= 100 for value in numbers.values()) and numbers["knn/top1"] > 20, "digits are easy"


def test_its_numbers_are_those_of_the_last_class_token_for_an_even_share_of_both_splits(backbone: nn.Module) -> None:
    """DINO's k-NN compares what the network puts out, and not the concatenation that its linear probe reads."""
    watch = monitor()
    assert [len(split) for split in (watch.train, watch.test)] == [40, 40]
    assert all((split.labels.bincount() == 4).all() for split in (watch.train, watch.test))
    features = []
    for split in (watch.train, watch.test):
        pixels = torch.stack([split.image(index) for index in range(len(split))]) / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.no_grad():
            views = (pixels - mean[:, None, None]) / std[:, None, None]
            features.append(backbone.eval().probe_features(views)[:, -backbone.dim :])
    assert backbone.probe_dim == 4 * features[0].shape[1]
    top1 = plain_knn(features[0], watch.train.labels, features[1], watch.test.labels, 5)
    recall, precision = plain_retrieval(features[1], watch.test.labels)
    found = watch(backbone, 2)
    assert found["knn/top1"] == pytest.approx(100 * top1)
    assert (found["retrieval/recall1"], found["retrieval/map"]) == pytest.approx((100 * recall, 100 * precision))


@pytest.mark.parametrize(("image_size", "resize"), [(16, 16), (12, 16), (24, 18), (None, 18)])
def test_small_images_are_read_whole_and_others_cropped(monkeypatch, backbone, image_size, resize) -> None:
    asked = {}

    def batches(images, **options):
        asked.update(options)
        yield {"bicubic": torch.rand(len(images), 3, 16, 16)}, images.labels, None

    monkeypatch.setattr(neighbours, "test_batches", batches)
    monitor(SPEC.model_copy(update={"image_size": image_size}))(backbone, 5)
    assert (asked["crop_size"], asked["resize"]) == (16, resize)


def test_a_subset_of_the_training_limits_it_too() -> None:
    assert len(monitor(SPEC.model_copy(update={"subset": 30}), images=10_000).train) == 30


def test_it_leaves_modes_parameters_and_random_states_alone() -> None:
    network = build_method(nano("resnet_nano", "dino")).probe_backbone()
    modules = list(network.modules())
    for number, module in enumerate(modules):
        module.training = bool(number % 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes, state, beats = [module.training for module in modules], torch.get_rng_state(), []
    assert monitor(nano("resnet_nano", "dino"), alive=lambda: beats.append(1))(network, 2)
    assert [module.training for module in modules] == modes
    assert torch.equal(torch.get_rng_state(), state) and len(beats) == 2
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ZeroDivisionError), evaluating(network):
        assert not any(module.training for module in modules)
        raise ZeroDivisionError
    assert [module.training for module in modules] == modes


def test_an_image_that_cannot_be_read_costs_the_numbers_and_not_the_training(backbone, monkeypatch, caplog) -> None:
    def damaged(index: int) -> Tensor:
        raise DataError("unreadable image 7.jpg")

    watch = monitor()
    monkeypatch.setattr(watch.test, "image", damaged)
    assert watch(backbone, 2) == {}
    assert "no numbers after epoch 2: unreadable image 7.jpg" in caplog.text


def test_what_cannot_be_watched_is_refused_at_once(monkeypatch) -> None:
    with pytest.raises(DataError, match=r"(?s)`absent`.*the monitor needs training and test images.*every_epochs = 0"):
        monitor(SPEC.model_copy(update={"dataset": "absent"}))
    with pytest.raises(RequestError, match="no two of its 5 test images are of one class"):
        monitor(images=5)
    train, test = (open_images(name, "test", Locations(), subset=20) for name in ("digits_low", "digits_high"))
    with pytest.raises(RequestError, match="different classes"):
        Monitor(SPEC, train, test, every_epochs=1, neighbours=5, device="cpu")
