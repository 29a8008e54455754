"""`Normalizer`: raw images to network input, with figures from the training images only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1024
_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """Scale 8-bit images to 0..1, then subtract the mean and divide by the deviation of each channel.

    Args:
        mean: One value for each channel, or one for all; for 8-bit images on the scale 0..1.
        std: The same for the standard deviation; a constant channel (0) is only centred.

    Raises:
        ValueError: If the two differ in length, or are not finite numbers (deviations: 0 or more).

    Example:
        >>> Normalizer((0.5,), (0.5,))(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
        1.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        mean = tuple(float(value) for value in self.mean)
        std = tuple(float(value) for value in self.std)
        values = torch.tensor(mean + std, dtype=torch.float64)
        if not mean or len(mean) != len(std) or not values.isfinite().all() or min(std) < 0:
            raise ValueError(
                "A normaliser needs one finite mean and one finite deviation (0 or more) for each channel; "
                f"got mean {self.mean}, std {self.std}."
            )
        object.__setattr__(self, "mean", mean)
        # A channel without contrast would divide by zero; centring it is all there is to do.
        object.__setattr__(self, "std", tuple(1.0 if value < _SMALLEST_STD else value for value in std))

    @classmethod
    def fit(cls, images: Tensor) -> Normalizer:
        """Measure mean and deviation of each channel.

        Args:
            images: [N, C, H, W], uint8 or floating; the training images.

        Raises:
            ValueError: If there are no images, or of another shape or type.
        """
        if images.ndim != 4 or images.numel() == 0:
            raise ValueError(f"Images must be [N, C, H, W], at least one; got {tuple(images.shape)}.")
        mean, std = _measure_bytes(images) if images.dtype == torch.uint8 else _measure_floats(images)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    @classmethod
    def identity(cls) -> Normalizer:
        """Leave floating images as they are; 8-bit images are still scaled to 0..1."""
        return cls((0.0,), (1.0,))

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised images [B, C, H, W]: float64 stays float64, all else becomes float32.

        Args:
            images: [B, C, H, W], uint8 or floating.

        Raises:
            ValueError: If the number of channels differs, or the type is neither.
        """
        if len(self.mean) not in (1, images.shape[1]):
            raise ValueError(f"This normaliser is for images of {len(self.mean)} channels; got {images.shape[1]}.")
        pixels, is_new = _to_unit_scale(images)
        if self.mean == (0.0,) and self.std == (1.0,):
            return pixels
        figures = torch.tensor([self.mean, self.std], dtype=pixels.dtype)
        # A blocking copy would wait until an accelerator has nothing to do.
        mean, std = figures.to(pixels.device, non_blocking=True)[..., None, None]
        # In place where nobody else has the tensor: four passes over a batch cost more than its augmentation.
        centred = pixels.sub_(mean) if is_new else pixels - mean
        return centred.div_(std)

    def describe(self) -> dict[str, list[float]]:
        """Plain data that differs whenever the output differs; for checksums and the study's attributes."""
        return {"mean": list(self.mean), "std": list(self.std)}


def _to_unit_scale(images: Tensor) -> tuple[Tensor, bool]:
    """Scale 8-bit images; the second value tells whether the result may be changed in place."""
    if images.dtype == torch.uint8:
        return images.float().div_(255), True
    if not images.is_floating_point():
        raise ValueError(f"Images must be uint8 or floating; got {images.dtype}.")
    return images if images.dtype == torch.float64 else images.float(), False


def _measure_bytes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Measure by counting values: exact, so the same on every machine and for any number of threads."""
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for chunk in images.split(_CHUNK):
        for channel in range(channels):
            counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256).cpu()
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = (share * values).sum(dim=1)
    return mean, (share * (values - mean[:, None]) ** 2).sum(dim=1).sqrt()


def _measure_floats(images: Tensor) -> tuple[Tensor, Tensor]:
    if not images.is_floating_point():
        raise ValueError(f"Images must be uint8 or floating; got {images.dtype}.")
    count = images.numel() / images.shape[1]
    chunks = images.split(_CHUNK)
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0) / count
    centred = (chunk.double() - mean[:, None, None] for chunk in chunks)
    variance = torch.stack([(part**2).sum(dim=(0, 2, 3)) for part in centred]).sum(dim=0) / count
    # The last digits depend on the order of summation, hence on the number of threads; seven stay the same.
    return _round_digits(mean.cpu()), _round_digits(variance.sqrt().cpu())


def _round_digits(values: Tensor) -> Tensor:
    return torch.tensor([float(f"{value:.6e}") for value in values.tolist()], dtype=torch.float64)
