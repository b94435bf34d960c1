"""TokenCut: graphs whose cut is known, the sign and the seed, sizes, files, and the way from images to scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from clever.backbones import VisionTransformer, build_backbone
from clever.bench.saliency import plain_affinity, plain_cut, plain_piece, plain_vector
from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.data import ops
from clever.data.saliency_sets import SaliencySet, open_saliency, read_photograph
from clever.data.samples import open_saliency_set
from clever.errors import RequestError
from clever.evaluate.bilateral import bilateral_solution
from clever.evaluate.saliency import (
    FAINT,
    affinity,
    fitted,
    fitted_size,
    keys,
    saliency,
    saliency_mask,
    second_eigenvector,
    seeds_piece,
    token_cut,
)
from clever.evaluate.saliency_scores import image_scores, mean_scores
from clever.evaluations import SaliencySpec
from clever.grid import studies
from clever.names import Backbone as Name
from clever.names import Stem


def kinds(rows: int, columns: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """The kind of each patch: 0, and 1, 2 ... in boxes top, left, bottom, right."""
    found = np.zeros((rows, columns), np.int64)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        found[top:bottom, left:right] = number
    return found


def features_of(found: np.ndarray) -> Tensor:
    """One direction a kind, all orthogonal, of lengths that must not matter."""
    lengths = torch.rand(found.size, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    return torch.eye(4)[torch.from_numpy(found).flatten()] * lengths


def noisy_features(rows: int, columns: int, seed: int, dim: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pieces = torch.zeros(rows, columns, dtype=torch.int64)
    pieces[1:4, 1:5] = 1
    centres = torch.randn(2, dim, generator=generator)
    return centres[pieces.flatten()] + 0.9 * torch.randn(rows * columns, dim, generator=generator)


def generalised(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues, ascending, and eigenvectors of (D - A) v = lambda D v, by numpy, from the definition."""
    degrees = np.diag(weights.sum(1))
    values, vectors = np.linalg.eig(np.linalg.solve(degrees, degrees - weights))
    order = np.argsort(values.real)
    return values.real[order], vectors.real[:, order]


def parallel(one: np.ndarray, other: np.ndarray) -> float:
    return abs(one @ other) / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.fixture
def nano() -> VisionTransformer:
    torch.manual_seed(5)
    shape = BackboneShape(name=Name.VIT_NANO, image_size=32, patch_size=4)
    return build_backbone(shape).eval().requires_grad_(False)


def test_edges_are_one_above_the_threshold_and_faint_otherwise() -> None:
    angles = torch.tensor([0.0, 1.3, 1.4, 3.0])  # cosines with the first: 1, .267, .170, -.99
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [7.0], [0.1], [2.0]])
    weights = affinity(features)
    assert weights[0].tolist() == [1, 1, 1e-5, 1e-5] and weights.dtype == np.float64
    assert (weights == weights.T).all() and (np.diag(weights) == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_graph_and_the_eigenvector_equal_the_plain_ones(seed: int) -> None:
    features = noisy_features(6, 7, seed)
    weights = affinity(features)
    assert (weights == plain_affinity(features)).all() and 0.05 < (weights == 1).mean() < 0.95
    values, vectors = generalised(weights)
    assert values[2] - values[1] > 1e-3, "the second eigenvector is the only one of its kind"
    for found in (second_eigenvector(weights), plain_vector(weights)):
        assert parallel(found, vectors[:, 1]) == pytest.approx(1, abs=1e-9)
    assert (token_cut(features, 6, 7) == plain_cut(features, 6, 7)).all()


def test_two_cliques_weakly_joined_have_the_vector_that_is_known() -> None:
    """It is constant on each clique and D-orthogonal to the constant vector, so larger on the smaller one."""
    few, many = 5, 19
    inside = np.arange(few + many) < few
    weights = np.where(inside[:, None] == inside, 1.0, FAINT)
    vector = second_eigenvector(weights)
    degrees = weights.sum(1)
    assert vector[inside] == pytest.approx(vector[0]) and vector[~inside] == pytest.approx(vector[-1])
    assert vector[0] / vector[-1] == pytest.approx(-degrees[~inside].sum() / degrees[inside].sum())


@pytest.mark.parametrize("box", [(2, 3, 5, 6), (0, 0, 2, 3), (1, 1, 6, 7)], ids=["inside", "corner", "more than half"])
def test_the_smaller_of_two_kinds_is_the_object(box: tuple[int, int, int, int]) -> None:
    found = kinds(6, 8, box)
    smaller = found == (1 if (found == 1).sum() < 24 else 0)
    cut = token_cut(features_of(found), 6, 8)
    pieces, count = ndimage.label(smaller)
    assert count == 1 or (box == (1, 1, 6, 7))
    assert (cut == (pieces == pieces[tuple(np.argwhere(smaller)[0])])).all()


def test_of_several_pieces_of_one_kind_that_of_the_first_patch_is_kept() -> None:
    found = kinds(6, 9, (1, 1, 3, 3), (3, 6, 5, 8))
    found[found == 2] = 1
    cut = token_cut(features_of(found), 6, 9)
    assert cut is not None and cut[1:3, 1:3].all() and cut.sum() == 4


@pytest.mark.parametrize("sign", [1, -1])
def test_the_seed_decides_which_side_is_the_object_whatever_the_sign(sign: int) -> None:
    vector = np.array([[-0.2, 0.1, 0.1], [0.1, -0.9, -0.2], [0.1, 0.1, 0.2]])  # the first is on the seed's side, apart
    wanted = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    assert (seeds_piece(sign * vector) == wanted).all()


def test_the_foreground_lies_above_the_mean_and_not_above_zero() -> None:
    vector = np.array([[9.0, 3.0, 1.0, 1.0, 1.0]])  # its mean is 3
    assert seeds_piece(vector).tolist() == [[True, False, False, False, False]]


def test_diagonal_neighbours_are_not_joined() -> None:
    vector = np.array([[0.9, -0.1, 0.8], [-0.1, 0.8, -0.1], [-0.1, 0.8, -0.1]])
    assert seeds_piece(vector).tolist() == [[True, False, False], [False] * 3, [False] * 3]


def test_equal_largest_values_give_the_first_patch_whatever_the_rounding() -> None:
    vector = np.array([[0.5, -0.4, -0.4, 0.5]])
    for noise in (1e-12, -1e-12):
        assert seeds_piece(vector + [[0, 0, 0, noise]]).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("seed", range(4))
def test_the_piece_equals_the_plain_one_and_scipys(seed: int) -> None:
    vector = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((13, 17)), 0.8)
    piece = seeds_piece(vector)
    assert (piece == plain_piece(vector)).all()
    seed_place = np.unravel_index(np.abs(vector).argmax(), vector.shape)
    labels, count = ndimage.label((vector > vector.mean()) == (vector[seed_place] > vector.mean()))
    assert count > 1 and (piece == (labels == labels[seed_place])).all()


@pytest.mark.parametrize(
    ("features", "rows"),
    [(torch.ones(6, 4), 2), (torch.zeros(6, 4), 2), (torch.eye(6), 3), (torch.ones(1, 4), 1), (torch.eye(2), 1)],
    ids=["all alike", "all zero", "all different", "one patch", "two patches"],
)
def test_without_a_difference_between_patches_there_is_no_cut(features: Tensor, rows: int) -> None:
    assert token_cut(features, rows, len(features) // rows) is None


@pytest.mark.parametrize(
    ("size", "patch", "wanted"),
    [
        ((400, 300), 16, (400, 304)), ((401, 295), 16, (400, 288)), ((24, 40), 16, (32, 32)), ((5, 3), 16, (16, 16)),
        ((10, 9), 4, (8, 8)),
    ],
)
def test_sides_go_to_the_nearest_multiple_of_the_patch(
    size: tuple[int, int], patch: int, wanted: tuple[int, int]
) -> None:
    """Python's round takes the even one of two equally near: 1.5 and 2.5 both become 2."""
    assert fitted(Image.new("RGB", size), patch).size == wanted


@pytest.mark.parametrize(
    ("size", "wanted"), [((400, 300), (84, 64)), ((300, 400), (64, 84)), ((64, 90), (64, 88)), ((30, 90), (32, 88))]
)
def test_a_frame_side_shrinks_the_shorter_side_and_never_enlarges(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert fitted(Image.new("RGB", size), 4, frame_side=64).size == wanted


def test_resizing_is_lanczos() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (19, 30, 3), np.uint8))
    assert (np.asarray(fitted(image, 4)) == np.asarray(image.resize((32, 20), Image.Resampling.LANCZOS))).all()


def test_keys_are_those_of_the_last_block_without_cls(nano: VisionTransformer) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (23, 41, 3), np.uint8))
    seen: list[Tensor] = []
    hook = nano.blocks[-1].attn.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pixels = ops.normalise(torch.from_numpy(np.array(fitted(image, 4))).permute(2, 0, 1)[None] / 255)
    tokens = nano._embed(pixels)
    for block in nano.blocks:
        tokens = block(tokens)
    hook.remove()
    heads = seen[0].view(1, -1, 3, 2, 32).permute(2, 0, 3, 1, 4)[1]  # queries, keys, values; (1, heads, N, 32)
    wanted = heads.transpose(1, 2).flatten(2)[0, 1:]
    found, rows, columns = keys(nano, image, "cpu")
    assert (rows, columns) == (6, 10) and found.shape == (60, 64)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_patches_are_enlarged_to_the_image_by_the_nearest(
    nano: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = np.random.default_rng(2).random((6, 10)) > 0.5
    monkeypatch.setattr("clever.evaluate.saliency.token_cut", lambda features, rows, columns: patches)
    mask = saliency_mask(nano, Image.new("RGB", (41, 23)))
    assert mask.shape == (23, 41) and mask.dtype == bool
    rows, columns = np.arange(23) * 6 // 23, np.arange(41) * 10 // 41
    assert (mask == patches[rows][:, columns]).all()


def painted_set(root: Path, count: int = 3) -> SaliencySet:
    """Noise with a bright block; sizes differ from image to image."""
    random = np.random.default_rng(7)
    for name in ("images", "ground_truth_mask"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        height, width = 22 + 3 * index, 41 - 4 * index
        truth = np.zeros((height, width), np.uint8)
        truth[6:16, 10:24] = 255
        pixels = random.integers(0, 60, (height, width, 3)) + truth[:, :, None] // 4 * 3
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(truth).save(root / "ground_truth_mask" / f"{index}.png")
    return open_saliency("painted", root)


def test_scores_are_those_of_the_saved_masks(nano: VisionTransformer, tmp_path: Path) -> None:
    images, reports = painted_set(tmp_path / "set"), []
    result = saliency(nano, images.pairs, tmp_path / "out", solver=True, progress=reports.append)
    judged: dict[str, list] = {"": [], "+bs": []}
    for pair in images.pairs:
        truth = np.asarray(Image.open(pair.truth)) > 0
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{pair.stem}.png"))
        solved = np.asarray(Image.open(tmp_path / "out" / "masks+bs" / f"{pair.stem}.png"))
        assert {*np.unique(mask), *np.unique(solved)} <= {0, 255} and mask.shape == solved.shape == truth.shape
        soft = bilateral_solution(np.asarray(read_photograph(pair.image)), mask > 0)
        assert ((soft > 0.5) == (solved > 0)).all()
        judged[""].append(image_scores(mask > 0, truth))
        judged["+bs"].append(image_scores(soft, truth))
        own = result["per_image"][pair.stem]
        assert own["iou"] == judged[""][-1].iou and own["fmax+bs"] == judged["+bs"][-1].curve.max() and own["cut"]
    wanted = {f"{name}{end}": value for end, found in judged.items() for name, value in mean_scores(found).items()}
    assert result["scores"] == pytest.approx(wanted)
    assert (result["images"], result["uncut"], len(result["per_image"])) == (3, 0, 3)
    assert [(each["step"], each["of"]) for each in reports] == [(1, 3), (2, 3), (3, 3)]


def test_without_the_solver_its_scores_and_masks_are_absent(nano: VisionTransformer, tmp_path: Path) -> None:
    result = saliency(nano, painted_set(tmp_path / "set").pairs, tmp_path / "out")
    assert set(result["scores"]) == {"iou", "acc", "fmax"}
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["masks"]
    assert set(result["per_image"]["1"]) == {"cut", "iou", "acc", "fmax"}


def test_threads_and_the_folder_change_no_score(nano: VisionTransformer, tmp_path: Path) -> None:
    images = painted_set(tmp_path)
    assert saliency(nano, images.pairs, None, workers=3) == saliency(nano, images.pairs, tmp_path / "out")


def test_an_image_without_a_cut_has_an_empty_mask_and_is_counted(nano: VisionTransformer, tmp_path: Path) -> None:
    images = painted_set(tmp_path / "set", count=2)
    with torch.no_grad():
        nano.pos_embed.zero_()  # the only thing that tells the patches of one colour apart
    Image.new("RGB", (41, 22), (9, 90, 200)).save(images.pairs[0].image)
    result = saliency(nano, images.pairs, tmp_path / "out", solver=True)
    assert result["uncut"] == 1 and [one["cut"] for one in result["per_image"].values()] == [False, True]
    alone = result["per_image"]["0"]
    assert (alone["iou"], alone["fmax"], alone["iou+bs"]) == (0, 0, 0)
    assert alone["acc"] == pytest.approx(1 - 140 / (22 * 41))
    assert not np.asarray(Image.open(tmp_path / "out" / "masks" / "0.png")).any()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_file_ends_it_and_is_named(workers: int, nano: VisionTransformer, tmp_path: Path) -> None:
    images = painted_set(tmp_path)
    images.pairs[1].image.write_bytes(images.pairs[1].image.read_bytes()[:300])
    with pytest.raises(RequestError, match="unreadable image .*1.png"):
        saliency(nano, images.pairs, None, workers=workers)
    Image.new("L", (5, 5)).save(images.pairs[0].truth)
    with pytest.raises(RequestError, match="0.png is 5x5 pixels"):
        saliency(nano, images.pairs, None, workers=workers)


def test_a_backbone_without_patches_is_refused(tmp_path: Path) -> None:
    resnet = build_backbone(BackboneShape(name=Name.RESNET_NANO, image_size=8, stem=Stem.SMALL))
    with pytest.raises(RequestError, match="keys of a ViT.*ResNet.*`vit_"):
        saliency(resnet, painted_set(tmp_path).pairs, None)


class ByColour(VisionTransformer):
    """A ViT whose keys are the colours of its patches, so that its cut is the painted block."""

    def last_keys(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, self.patch_size).flatten(2).transpose(1, 2)


def test_a_backbone_that_sees_the_object_finds_it(tmp_path: Path) -> None:
    images = painted_set(tmp_path)
    result = saliency(ByColour(32, 4, 8, 1, 1), images.pairs, tmp_path)
    assert result["scores"]["iou"] > 0.6 and result["scores"]["acc"] > 0.85


@pytest.mark.slow
def test_photographs_at_full_size_and_at_a_small_one(nano: VisionTransformer, real_data: Path, tmp_path: Path) -> None:
    images = open_saliency("ecssd", real_data / "ecssd_300", subset=3)
    torch.manual_seed(0)
    tiny = build_backbone(BackboneShape(name=Name.VIT_TINY, image_size=224, patch_size=16)).eval().requires_grad_(False)
    result = saliency(tiny, images.pairs, tmp_path, solver=True)
    assert set(result["scores"]) == {"iou", "acc", "fmax", "iou+bs", "acc+bs", "fmax+bs"}
    assert all(0 < value < 1 for value in result["scores"].values()) and result["uncut"] == 0
    small = saliency(nano, images.pairs, None, frame_side=64)
    assert all(0 < value < 1 for value in small["scores"].values())
    for pair in images.pairs:
        photograph = read_photograph(pair.image)
        assert Image.open(tmp_path / "masks" / f"{pair.stem}.png").size == photograph.size
        features, rows, columns = keys(nano, photograph, "cpu", frame_side=64)
        assert min(rows, columns) == 16
        assert (token_cut(features, rows, columns) == plain_cut(features, rows, columns)).all()
        mask = saliency_mask(nano, photograph, frame_side=64)
        assert mask is not None and mask.shape == (photograph.height, photograph.width)


# --- sizes of the small profiles ------------------------------------------------------------------------------------

SMALL = ("tiny", "smoke", "cifar10", "imagenette")
MOST_OF_A_SMALL_PROFILE = 900  # patches of an image


def spec_of(profile: str) -> SaliencySpec:
    return studies(["figure4"], profile, Locations())[0].points[0].chains["ecssd"][0][-1].spec


def patches(spec: SaliencySpec, image: Image.Image) -> int:
    width, height = fitted_size(image, spec.shape.patch_size, spec.frame_side)
    return width * height // spec.shape.patch_size**2


@pytest.mark.parametrize("profile", SMALL)
def test_a_small_profile_cuts_a_photograph_twice_as_long_as_wide_into_few_patches(profile: str) -> None:
    spec = spec_of(profile)
    for size in ((400, 200), (200, 400), (400, 201), (300, 300)):
        assert 256 <= patches(spec, Image.new("L", size)) <= MOST_OF_A_SMALL_PROFILE


@pytest.mark.parametrize("profile", SMALL)
def test_a_small_profile_cuts_all_sample_photographs_into_few_patches(
    profile: str, real_data: Path, tmp_path: Path
) -> None:
    images = open_saliency_set("saliency_sample", Locations(roots=(real_data,)), tmp_path)
    spec = spec_of(profile)
    for pair in images.pairs:
        with Image.open(pair.image) as image:
            assert patches(spec, image) <= MOST_OF_A_SMALL_PROFILE, pair.image
