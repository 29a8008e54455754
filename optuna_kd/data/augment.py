"""Augmentation as data: a small table of shifts, flips and cut-outs, so that any view can be made again exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.registry import Registry, suggest_name

AUTO = "auto"
_SHARES = 2**16  # a table does not know the size of the images, so the centre of a square is a share of the sides


@dataclass(frozen=True)
class AugmentationInfo:
    """What an augmentation does.

    Args:
        summary: One phrase for lists.
        shift: Whether images are zero-padded and cropped at a random place.
        flip: Whether half of the images are mirrored.
        cut: Whether a square is hidden at a random place.
    """

    summary: str
    shift: bool
    flip: bool
    cut: bool = False


AUGMENTATIONS: Registry[AugmentationInfo] = Registry("augmentation")
AUGMENTATIONS.add("none", AugmentationInfo("images as they are", shift=False, flip=False))
AUGMENTATIONS.add("shift", AugmentationInfo("random shift by up to an eighth", shift=True, flip=False))
AUGMENTATIONS.add("crop-flip", AugmentationInfo("random shift and mirroring", shift=True, flip=True))
AUGMENTATIONS.add("shift-cutout", AugmentationInfo("shift, and a square hidden", shift=True, flip=False, cut=True))
AUGMENTATIONS.add(
    "crop-flip-cutout", AugmentationInfo("shift, mirroring, and a square hidden", shift=True, flip=True, cut=True)
)


@dataclass(frozen=True)
class Augmentation:
    """Zero-pad, crop at a random place, mirror: the standard augmentation of CIFAR, replayable; cutout on top.

    Cutout (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552) hides a square whose centre may be any pixel,
    so that part of it may lie outside.

    What happens to image i in one view is row i of the table that `draw` makes from a seed, so views can be
    replayed for any images in any order: teacher outputs stored for a view stay aligned with it.

    Args:
        name: Its name in `AUGMENTATIONS`.
        pad: Pixels of zero padding at each side; shifts are in -pad..pad. 0 for none.
        flip: Whether half of the images are mirrored left to right.
        cut: Side of the hidden square in pixels; 0 for none.

    Example:
        >>> augmentation = create_augmentation("crop-flip", (3, 32, 32))
        >>> table = augmentation.draw(5, seed=0)
        >>> augmentation.apply(torch.zeros(2, 3, 32, 32), table[[4, 1]]).shape
        torch.Size([2, 3, 32, 32])
    """

    name: str
    pad: int
    flip: bool
    cut: int = 0

    @property
    def is_identity(self) -> bool:
        """Whether every view of an image equals the image."""
        return self.pad == 0 and not self.flip and self.cut == 0

    @property
    def columns(self) -> tuple[str, ...]:
        """What a table holds: offsets into the padded image, mirrored or not, centre of the square (65,536ths)."""
        return ("dy", "dx", "flip", "y", "x") if self.cut else ("dy", "dx", "flip")

    def draw(self, n_images: int, seed: int) -> Tensor:
        """Draw one view of a whole data set: int64 [n_images, 3] of (dy, dx, flip), with cutout [n_images, 5].

        The first three columns of a seed are the same with cutout and without.

        Args:
            n_images: Number of images in the data set; row i belongs to image i.
            seed: Same seed, same view. Derive one for each view.
        """
        generator = torch.Generator().manual_seed(seed)
        offsets = torch.randint(0, 2 * self.pad + 1, (n_images, 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (n_images, 1), generator=generator)
        if not self.cut:
            return torch.cat([offsets, flips], dim=1)
        # Drawn last: the tables of studies that know no cutout stay as they are.
        centres = torch.randint(0, _SHARES, (n_images, 2), generator=generator)
        return torch.cat([offsets, flips, centres], dim=1)

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Shift and mirror `images` as `params` says, on the device of the images; `hide` does the cutout.

        Padding is zero in raw space, before any normalisation, as is the habit on CIFAR.

        Args:
            images: [B, C, H, W], any type.
            params: [B, 3] or, with cutout, [B, 5]: the rows of a table from `draw` for these images.

        Raises:
            ValueError: If there is not one row for each image.
        """
        self._check(images, params)
        if self.pad == 0 and not self.flip:
            return images
        dy, dx, flip = params[:, :3].to(images.device, non_blocking=True).unbind(dim=1)
        cropped = _crop(images, self.pad, dy, dx) if self.pad else images
        return _mirror(cropped, flip) if self.flip else cropped

    def hide(self, images: Tensor, params: Tensor) -> Tensor:
        """Set the square of each image to zero; after normalisation that is the mean colour.

        So do DeVries and Taylor: the statistics of a batch hardly change then. Their side is half that of the image
        for CIFAR-10, as here (a quarter for CIFAR-100).

        Args:
            images: [B, C, H, W], floating, normalised, as the networks see them; shifted and mirrored already.
            params: [B, 5], the rows of a table from `draw` for these images.

        Raises:
            ValueError: If there is not one row for each image.
        """
        self._check(images, params)
        if not self.cut:
            return images
        y, x = params[:, 3:].to(images.device, non_blocking=True).unbind(dim=1)
        height, width = images.shape[2:]
        rows, columns = _within(y, height, self.cut), _within(x, width, self.cut)
        shown = ~(rows[:, None, :, None] & columns[:, None, None, :])
        return images * shown  # four times as fast as masked_fill

    def _check(self, images: Tensor, params: Tensor) -> None:
        if params.shape != (len(images), len(self.columns)):
            raise ValueError(
                f"Augmentation needs one row ({', '.join(self.columns)}) for each of {len(images)} images; "
                f"got a table of shape {tuple(params.shape)}."
            )

    def describe(self) -> dict[str, str | int | bool]:
        """Plain data that differs whenever the views differ; for checksums and the study's attributes."""
        described: dict[str, str | int | bool] = {"name": self.name, "pad": self.pad, "flip": self.flip}
        return {**described, "cut": self.cut} if self.cut else described


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
    pad = max(1, side // 8) if info.shift else 0
    return Augmentation(name, pad, flip=info.flip, cut=max(1, side // 2) if info.cut else 0)


def _crop(images: Tensor, pad: int, dy: Tensor, dx: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    padded = F.pad(images, (pad,) * 4).contiguous()
    image, channel, line = padded.stride()[:3]
    # Entry i is the window whose first pixel is number i in memory, so the windows overlap; index_select copies them
    # row by row, ten times as fast as an index for each pixel.
    last = (channels - 1) * channel + (height - 1) * line + width
    windows = padded.as_strided((padded.numel() - last + 1, channels, height, width), (1, channel, line, 1))
    return windows.index_select(0, torch.arange(batch, device=images.device) * image + dy * line + dx)


def _mirror(images: Tensor, flip: Tensor) -> Tensor:
    # Whole images are copied; torch.where would go pixel by pixel.
    number = torch.arange(len(images), device=images.device) + flip * len(images)
    return torch.cat([images, images.flip(3)]).index_select(0, number)


def _within(centre: Tensor, side: int, cut: int) -> Tensor:
    """Tell for every pixel along a side whether the square of each image covers it [B, side]."""
    start = (centre * side // _SHARES - cut // 2)[:, None]
    pixels = torch.arange(side, device=centre.device)
    return (pixels >= start) & (pixels < start + cut)
