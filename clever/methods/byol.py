"""BYOL: the student foretells what its moving average makes of the other view (Grill et al. 2020)."""

from torch import Tensor

from clever.methods.branches import Pairs, PredictedTeacher, perceptron
from clever.methods.contrastive import squared_distance
from clever.methods.objective import Objective, TwoViewMethod


class ByolObjective(Objective):
    """Projector and teacher, and a predictor that only the student has."""

    BRANCH = PredictedTeacher
    sums_over_batch = True

    def branch(self, dim: int, outputs: int) -> PredictedTeacher:
        hyper = self.hyper
        student, teacher = (perceptron(dim, hyper.head_hidden, outputs) for _ in range(2))
        return PredictedTeacher(student, teacher, perceptron(outputs, hyper.predictor_hidden, outputs))

    def forward(self, pairs: Pairs) -> Tensor:
        return squared_distance(pairs.online, pairs.target)


class Byol(TwoViewMethod):
    """BYOL on all the features."""

    OBJECTIVE = ByolObjective
