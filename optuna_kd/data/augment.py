"""Augmentation as data: a small table of shifts and flips, so that any view can be made again exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.registry import Registry, suggest_name

AUTO = "auto"


@dataclass(frozen=True)
class AugmentationInfo:
    """What an augmentation does.

    Args:
        summary: One phrase for lists.
        shift: Whether images are zero-padded and cropped at a random place.
        flip: Whether half of the images are mirrored.
    """

    summary: str
    shift: bool
    flip: bool


AUGMENTATIONS: Registry[AugmentationInfo] = Registry("augmentation")
AUGMENTATIONS.add("none", AugmentationInfo("images as they are", shift=False, flip=False))
AUGMENTATIONS.add("shift", AugmentationInfo("random shift by up to an eighth", shift=True, flip=False))
AUGMENTATIONS.add("crop-flip", AugmentationInfo("random shift and mirroring", shift=True, flip=True))


@dataclass(frozen=True)
class Augmentation:
    """Zero-pad, crop at a random place, mirror: the standard augmentation of CIFAR, replayable.

    What happens to image i in one view is row i of the table that `draw` makes from a seed, so views can be
    replayed for any images in any order: teacher outputs stored for a view stay aligned with it.

    Args:
        name: Its name in `AUGMENTATIONS`.
        pad: Pixels of zero padding at each side; shifts are in -pad..pad. 0 for none.
        flip: Whether half of the images are mirrored left to right.

    Example:
        >>> augmentation = create_augmentation("crop-flip", (3, 32, 32))
        >>> table = augmentation.draw(5, seed=0)
        >>> augmentation.apply(torch.zeros(2, 3, 32, 32), table[[4, 1]]).shape
        torch.Size([2, 3, 32, 32])
    """

    name: str
    pad: int
    flip: bool

    @property
    def is_identity(self) -> bool:
        """Whether every view of an image equals the image."""
        return self.pad == 0 and not self.flip

    def draw(self, n_images: int, seed: int) -> Tensor:
        """Draw one view of a whole data set: int64 [n_images, 3] of (dy, dx, flip).

        Args:
            n_images: Number of images in the data set; row i belongs to image i.
            seed: Same seed, same view. Derive one for each view.
        """
        generator = torch.Generator().manual_seed(seed)
        offsets = torch.randint(0, 2 * self.pad + 1, (n_images, 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (n_images, 1), generator=generator)
        return torch.cat([offsets, flips], dim=1)

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Make the views of `images` that `params` describes, on the device of the images.

        Padding is zero in raw space, before any normalisation, as is the habit on CIFAR.

        Args:
            images: [B, C, H, W], any type.
            params: [B, 3], the rows of a table from `draw` for these images.

        Raises:
            ValueError: If there is not one row for each image.
        """
        if params.shape != (len(images), 3):
            raise ValueError(
                f"Augmentation needs one row (dy, dx, flip) for each of {len(images)} images; "
                f"got a table of shape {tuple(params.shape)}."
            )
        if self.is_identity:
            return images
        dy, dx, flip = params.to(images.device).unbind(dim=1)
        height, width = images.shape[2:]
        padded = F.pad(images, (self.pad,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2 pad + 1, 2 pad + 1, H, W]
        cropped = windows[torch.arange(len(images), device=images.device), :, dy, dx]
        return torch.where(flip.bool()[:, None, None, None], cropped.flip(3), cropped)

    def describe(self) -> dict[str, str | int | bool]:
        """Plain data that differs whenever the views differ; for checksums and the study's attributes."""
        return {"name": self.name, "pad": self.pad, "flip": self.flip}


def create_augmentation(name: str, image_shape: tuple[int, int, int]) -> Augmentation:
    """Make the augmentation called `name` for images of one shape.

    Args:
        name: A name in `AUGMENTATIONS`, or "auto": crop-flip for colour images with a side of at least 16
            pixels, shift for others (mirroring turns digits and letters into something else).
        image_shape: (C, H, W).

    Raises:
        UnknownNameError: If there is no augmentation of that name.
    """
    channels, height, width = image_shape
    side = min(height, width)
    if name == AUTO:
        name = "crop-flip" if channels == 3 and side >= 16 else "shift"
    elif name not in AUGMENTATIONS:
        raise suggest_name("augmentation", name, [*AUGMENTATIONS, AUTO])
    info = AUGMENTATIONS[name]
    return Augmentation(name, pad=max(1, side // 8) if info.shift else 0, flip=info.flip)
