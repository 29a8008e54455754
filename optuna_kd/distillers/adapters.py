"""The adapter: makes a student's feature map comparable with the teacher's, and is dropped on export."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.distillers.numerics import full_precision, promote


class Adapter(nn.Module):
    """Bring two feature maps to one size, and the student to the teacher's number of channels.

    The larger map is average-pooled to the smaller, height and width apart. Where the numbers of channels
    differ, the student goes through a 1×1 convolution without bias and batch normalisation (as in ICKD);
    where they are equal, nothing is trained. Auto-KD: "pooling layer to align feature scales and
    1×1 Conv to align filter numbers".

    Args:
        student_shape: (C, H, W) of the student's map.
        teacher_shape: (C, H, W) of the teacher's map.
        generator: Draws the initial weights; PyTorch's global one if None.

    Raises:
        ValueError: If a shape is not three positive integers.

    Example:
        >>> adapter = Adapter((16, 8, 8), (32, 4, 4))
        >>> student, teacher = adapter(torch.rand(2, 16, 8, 8), torch.rand(2, 32, 4, 4))
        >>> student.shape == teacher.shape == (2, 32, 4, 4)
        True
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.student_shape = check_shape("student", student_shape)
        self.teacher_shape = check_shape("teacher", teacher_shape)
        self.conv: nn.Conv2d | None = None
        self.norm: nn.BatchNorm2d | None = None
        if self.student_shape[0] != self.teacher_shape[0]:
            # Not by skip_init: through the meta device it imports SymPy, seconds for a fresh process.
            with torch.random.fork_rng(devices=()):
                self.conv = nn.Conv2d(self.student_shape[0], self.teacher_shape[0], kernel_size=1, bias=False)
            # PyTorch's own initialisation of a convolution, from our generator.
            nn.init.kaiming_uniform_(self.conv.weight, a=math.sqrt(5), generator=generator)
            self.norm = nn.BatchNorm2d(self.teacher_shape[0])

    @property
    def aligned_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of both maps after alignment."""
        (_, h_s, w_s), (c_t, h_t, w_t) = self.student_shape, self.teacher_shape
        return c_t, min(h_s, h_t), min(w_s, w_t)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Align two maps.

        Args:
            student: [N, C_S, H_S, W_S]; height and width may differ from the declared ones.
            teacher: [N, C_T, H_T, W_T].

        Returns:
            Both as [N, C_T, min(H), min(W)], in float32 or float64.

        Raises:
            ValueError: If the number of channels is not the declared one.
        """
        for side, x, shape in (
            ("student", student, self.student_shape),
            ("teacher", teacher, self.teacher_shape),
        ):
            if x.dim() != 4 or x.shape[1] != shape[0]:
                raise ValueError(
                    f"This adapter was made for a {side} with {shape[0]} channels [N, {shape[0]}, H, W]; "
                    f"got {tuple(x.shape)}."
                )
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        with full_precision(student):
            return self._match_channels(_pool(promote(student), size)), _pool(promote(teacher), size)

    def _match_channels(self, x: Tensor) -> Tensor:
        if self.conv is None or self.norm is None:
            return x
        # Computed in the type of the weights: call `.double()` on the module to keep float64 throughout.
        y = self.conv(x.to(self.conv.weight.dtype))
        if self.training and y.numel() == y.shape[1]:
            # One value per channel has no variance; the running statistics stand in for it.
            norm = self.norm
            y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        else:
            y = self.norm(y)
        return y.to(x.dtype)


def check_shape(side: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return `shape` as (C, H, W), or raise a `ValueError` that names the side."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"The shape of a {side}'s feature map is (C, H, W), all positive; got {tuple(shape)!r}.")
    return sizes[0], sizes[1], sizes[2]


def _pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)
