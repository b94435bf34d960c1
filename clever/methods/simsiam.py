"""SimSiam: two views foretell each other, without negatives and without a teacher (Chen and He 2021)."""

from torch import Tensor, nn

from clever.methods.branches import Branch, Pairs, Predicted, perceptron
from clever.methods.contrastive import negative_cosine
from clever.methods.objective import Objective, TwoViewMethod


class SimSiamObjective(Objective):
    """Predictor and stop-gradient; the projector ends with a batch norm that learns nothing."""

    BRANCH = Predicted
    sums_over_batch = True

    def branch(self, dim: int, outputs: int) -> Predicted:
        projector = perceptron(dim, self.hyper.head_hidden, outputs, layers=3)
        projector[-1] = nn.Linear(self.hyper.head_hidden, outputs, bias=False)  # the batch norm would cancel a bias
        projector.append(nn.BatchNorm1d(outputs, affine=False))
        return Predicted(projector, perceptron(outputs, self.hyper.predictor_hidden, outputs))

    def forward(self, pairs: Pairs) -> Tensor:
        return negative_cosine(pairs.online, pairs.target)

    def constant_rate(self, branch: Branch) -> list[nn.Parameter]:
        projector, predictor = branch.parts()
        return list(predictor.parameters()) if self.hyper.constant_predictor else []


class SimSiam(TwoViewMethod):
    """SimSiam on all the features."""

    OBJECTIVE = SimSiamObjective
