"""How well a known parameter can be read from frozen features: ridge regression and logistic regression.

Features are float (n, d), targets (n,), in a random order. They are standardised by the images that a probe is fitted
to. The strength of the penalty, for one image, is chosen on the first fifth of the training images while the others are
fitted; then all of them are. The held-out images serve for the score alone.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RIDGE = tuple(10.0**power for power in range(3, -6, -1))  # from strong to weak: the strongest of equally good ones wins
LOGISTIC = tuple(10.0**power for power in range(1, -5, -1))
VALIDATION = 5  # one of so many training images
CONSTANT = 1e-5  # a column that varies by less, relative to its size, says nothing: that is rounding
ITERATIONS = 1000  # of the logistic regression, at most

Fit = Callable[[Tensor, Tensor, Tensor, Sequence[float]], Tensor]
Score = Callable[[Tensor, Tensor], float]


def read_value(train: Tensor, targets: Tensor, test: Tensor, truths: Tensor) -> float:
    """R^2 on the held-out images of a ridge regression; below 0 where their mean would be the better guess."""
    return _read(ridge, r_squared, RIDGE, train, targets, test, truths)


def read_choice(train: Tensor, targets: Tensor, test: Tensor, truths: Tensor) -> float:
    """AUC on the held-out images of a logistic regression; targets and truths are 0 or 1."""
    return _read(logistic, auc, LOGISTIC, train, targets, test, truths)


def collapsed(features: Tensor) -> bool:
    """Whether no column tells one image from another."""
    return not bool(_varying(features.double()).any())


def _read(
    fit: Fit, score: Score, strengths: Sequence[float], train: Tensor, targets: Tensor, test: Tensor, truths: Tensor
) -> float:
    held = max(1, len(train) // VALIDATION)
    trials = fit(train[held:], targets[held:], train[:held], strengths)
    scores = [score(trial, targets[:held]) for trial in trials]
    strength = strengths[scores.index(max(scores))]
    return score(fit(train, targets, test, [strength])[0], truths)


def ridge(train: Tensor, targets: Tensor, test: Tensor, strengths: Sequence[float]) -> Tensor:
    """Predictions (strengths, test images), float64, of ridge regressions with an intercept that is not penalised."""
    fitted, asked = standardised(train, test)
    count, width = fitted.shape
    mean = targets.double().mean()
    centred = targets.double() - mean
    dual = width > count  # then the system of one equation for each image is the smaller one
    gram = fitted @ fitted.T if dual else fitted.T @ fitted
    right = centred if dual else fitted.T @ centred
    kernel = asked @ fitted.T if dual else asked
    unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.stack([
        mean + kernel @ torch.linalg.solve(gram + strength * count * unit, right) for strength in strengths
    ])  # fmt: skip


def logistic(train: Tensor, targets: Tensor, test: Tensor, strengths: Sequence[float]) -> Tensor:
    """Decision values (strengths, test images), float64, of logistic regressions with a penalty on the squares."""
    from sklearn.linear_model import LogisticRegression  # takes seconds, and most tasks never need it

    fitted, asked = (each.cpu().numpy() for each in standardised(train, test))
    labels = targets.cpu().numpy() > 0.5
    if labels.all() or not labels.any() or not fitted.size:  # nothing to learn, or nothing to learn from
        return torch.zeros(len(strengths), len(test), dtype=torch.float64)
    values = []
    for strength in strengths:
        model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=ITERATIONS).fit(fitted, labels)
        values.append(torch.from_numpy(model.decision_function(asked)))
    return torch.stack(values)


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, less the mean and by the deviation of ``train``; columns that do not vary there are left out."""
    train = train.double()
    varying = _varying(train)
    train, test = train[:, varying], test.double()[:, varying]
    mean, deviation = train.mean(0), train.std(0, correction=0)
    return (train - mean) / deviation, (test - mean) / deviation


def _varying(features: Tensor) -> Tensor:
    return features.std(0, correction=0) > CONSTANT * features.abs().amax(0)


def r_squared(predictions: Tensor, truths: Tensor) -> float:
    """1 - squared error / variance; 0 where the truths do not vary."""
    truths = truths.double()
    total = (truths - truths.mean()).square().sum()
    return (1 - (truths - predictions).square().sum() / total).item() if total > 0 else 0.0


def auc(values: Tensor, truths: Tensor) -> float:
    """How often a 1 gets a larger value than a 0, ties counting half; 1/2 where there are no such pairs."""
    from scipy.stats import rankdata

    ones = truths.cpu().numpy() > 0.5
    first, others = int(ones.sum()), int((~ones).sum())
    if not first or not others:
        return 0.5
    ranks = rankdata(values.cpu().numpy())
    return float((ranks[ones].sum() - first * (first + 1) / 2) / (first * others))
