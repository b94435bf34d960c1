"""Losses over pairs of crops, as pure functions of what the networks put out.

A pair is a target crop g = 1..G and another crop v = 1..V, v != g; the targets are the first G of the V crops. Two
global and n local crops make 2 (1 + n) pairs. All pairs come from one product of the stacked tensors.
"""

import torch
from torch import Tensor


def pairwise_dot(targets: Tensor, crops: Tensor) -> Tensor:
    """Dot products over the last dimension of (G, B, K) and (V, B, K), in fp32 even under autocast: (G, V, B)."""
    with torch.autocast(targets.device.type, enabled=False):
        return torch.einsum("gbk,vbk->gvb", targets.float(), crops.float())


def mean_over_pairs(values: Tensor) -> Tensor:
    """The mean of (G, V) over the pairs of different crops."""
    targets, crops = values.shape
    same_crop = torch.eye(targets, crops, dtype=torch.bool, device=values.device)
    return values.masked_fill(same_crop, 0).sum() / (targets * crops - targets)


def cross_entropy(targets: Tensor, log_probabilities: Tensor) -> Tensor:
    """L_CL of DINO (Eq. 10): the mean over pairs and images of - sum_k p_k log q_k.

    ``targets`` are probabilities (G, B, K), ``log_probabilities`` (V, B, K).
    """
    return -mean_over_pairs(pairwise_dot(targets, log_probabilities).mean(dim=2))


def similarity(targets: Tensor, crops: Tensor, kind: str) -> Tensor:
    """The `dot` product or the `cosine` of each pair of vectors of (G, B, K) and (V, B, K): (G, V, B)."""
    products = pairwise_dot(targets, crops)
    if kind == "dot":
        return products
    if kind != "cosine":
        raise ValueError(f"`{kind}`: no such similarity (allowed: cosine, dot)")
    lengths = [torch.linalg.vector_norm(x.float(), dim=2).clamp_min(1e-8) for x in (targets, crops)]
    return products / (lengths[0][:, None] * lengths[1][None])


def orthogonality(targets: Tensor, crops: Tensor, kind: str) -> Tensor:
    """L_Orth: the mean over pairs of | mean over images of the similarity |.

    ``kind`` is `cosine`, as in the released code, or `dot`, as in Eq. 11 (its absolute value, which changes nothing
    for probabilities but keeps the loss bounded below for plain features).
    """
    return mean_over_pairs(similarity(targets, crops, kind).mean(dim=2).abs())
