"""Losses over two views of each image, as pure functions of what the heads put out; in fp32 even under autocast.

Outputs that are to agree come in pairs: ``online`` (P, B, K) with ``target`` (P, B, K), P = 1 or 2 directions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cosines(online: Tensor, target: Tensor) -> Tensor:
    """The cosine of each pair, (P, B); 0 where a vector is 0."""
    with torch.autocast(online.device.type, enabled=False):
        return F.cosine_similarity(online.float(), target.float(), dim=-1)


def dots(online: Tensor, target: Tensor) -> Tensor:
    """The dot product of each pair, (P, B)."""
    with torch.autocast(online.device.type, enabled=False):
        return (online.float() * target.float()).sum(dim=-1)


def negative_cosine(online: Tensor, target: Tensor) -> Tensor:
    """SimSiam: minus the mean cosine."""
    return -cosines(online, target).mean()


def squared_distance(online: Tensor, target: Tensor) -> Tensor:
    """BYOL (Eq. 2): the sum over directions of the mean of |p/|p| - z/|z||^2 = 2 - 2 cos(p, z)."""
    return (2 - 2 * cosines(online, target)).mean(dim=1).sum()


def logits_of_pairs(views: Tensor, everyone: Tensor, rank: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines over the temperature of each view with its image's other view (2 b,), and with all others (2 b, 2 N).

    ``views`` (2, b, K) are this rank's, ``everyone`` (2, N, K) those of the whole batch, with the rank's images from
    rank * b on. In the second result, -inf stands for the view itself and for its image's other view.
    """
    with torch.autocast(views.device.type, enabled=False):
        anchors = F.normalize(views.float(), dim=-1).flatten(0, 1)
        others = F.normalize(everyone.float(), dim=-1).flatten(0, 1)
        logits = anchors @ others.T / temperature
    images, total = views.shape[1], everyone.shape[1]
    first = torch.arange(rank * images, (rank + 1) * images, device=views.device)
    itself, positive = torch.cat((first, first + total)), torch.cat((first + total, first))
    positives = logits.gather(1, positive.unsqueeze(1)).squeeze(1)
    return positives, logits.scatter(1, torch.stack((itself, positive), dim=1), -torch.inf)


def nt_xent(positives: Tensor, negatives: Tensor) -> Tensor:
    """SimCLR (Eq. 1): the mean of -log(e^p / (e^p + sum of e^n)) over all views."""
    return (torch.cat((positives.unsqueeze(1), negatives), dim=1).logsumexp(dim=1) - positives).mean()


def debiased(positives: Tensor, negatives: Tensor, positive_share: float, temperature: float) -> Tensor:
    """Debiased contrastive loss (Chuang et al. 2020, Eq. 7 and 8) with one positive: the mean of -log(e^p / (e^p + g)).

    g = max((sum of e^n - N positive_share e^p) / (1 - positive_share), N e^(-1/temperature)) is the negative term
    without those negatives that are of the anchor's own class; N = columns - 2 negatives.
    """
    count = negatives.shape[1] - 2
    alike = count * positive_share * positives.exp()
    others = (negatives.exp().sum(dim=1) - alike) / (1 - positive_share)
    others = others.clamp_min(count * torch.tensor(-1 / temperature).exp().item())
    return ((positives.exp() + others).log() - positives).mean()


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo (Eq. 1): the mean cross-entropy of finding a query's own key among the keys of the queue.

    ``queries`` (P, B, K), ``keys`` (1 or P, B, K), ``queue`` (Q, K) of unit length.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = (F.normalize(x.float(), dim=-1) for x in (queries, keys))
        positives = (queries * keys).sum(dim=-1, keepdim=True)
        logits = torch.cat((positives, queries @ queue.T), dim=-1) / temperature
    return (logits.logsumexp(dim=-1) - logits[..., 0]).mean()


def find_own(predictions: Tensor, candidates: Tensor, rank: int, temperature: float) -> Tensor:
    """The mean cross-entropy of finding, by cosine, row rank * b + i of ``candidates`` for prediction i of b."""
    with torch.autocast(predictions.device.type, enabled=False):
        predictions, candidates = (F.normalize(x.float(), dim=-1) for x in (predictions, candidates))
        logits = predictions @ candidates.T / temperature
    rows = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, rows + rank * len(logits))
