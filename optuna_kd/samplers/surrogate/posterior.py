"""What is known about paths after some observations: the posterior of the Gaussian process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from optuna_kd.samplers.surrogate.kernel import Inputs, Kernel, prior_mean

Array = NDArray[np.float64]

JITTER = 1e-6  # on the diagonal


class Posterior:
    """What is known about any path after some observations.

    Args:
        kernel: The weights.
        seen: The observed paths; [observations].
        rewards: What was observed, with mean 0 and variance 1; [observations].

    Raises:
        numpy.linalg.LinAlgError: Never with finite rewards: the noise keeps the matrix positive.
    """

    def __init__(self, kernel: Kernel, seen: Inputs, rewards: Array) -> None:
        self.kernel = kernel
        self._covariance = kernel.against(seen)
        covariance = self._covariance(seen)
        matrix = covariance + (kernel.noise + JITTER) * np.eye(len(seen))
        factor = np.linalg.cholesky(matrix)
        root = solve_triangular(factor, np.eye(len(seen)), lower=True, check_finite=False)
        self._precision = root.T @ root
        self._weights = self._precision @ (rewards - prior_mean(seen, kernel.bowl))
        self.expected = (
            prior_mean(seen, kernel.bowl) + covariance @ self._weights
        )  # posterior means of the observed paths

    def __call__(self, paths: Inputs) -> tuple[Array, Array]:
        """Give mean and standard deviation of the noise-free reward of each path; [paths] each."""
        covariance = self._covariance(paths)
        explained = np.einsum("ij,ij->i", covariance @ self._precision, covariance)
        variance = self.kernel.variances(paths) - explained
        return prior_mean(paths, self.kernel.bowl) + covariance @ self._weights, np.sqrt(np.maximum(variance, 1e-12))
