"""Multinomial logistic regression: the linear probe itself."""

from classify.descent import SoftmaxLoss
from classify.linear import DescentHead


class LogisticHead(DescentHead):
    """Softmax regression on standardised features with a ridge penalty (Cox 1958; Bishop 2006, section 4.3.4).

        minimise  C sum_i -log softmax(W z_i + b)[y_i]  +  |W|^2 / 2

    The objective of scikit-learn's LogisticRegression for three classes or more; for two classes W has two rows here,
    so that its C is twice this one. Probabilities are the softmax itself.
    """

    loss = SoftmaxLoss()

    def __init__(self, C: float = 0.01, *, tol: float = 1e-4, max_iter: int = 500) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
