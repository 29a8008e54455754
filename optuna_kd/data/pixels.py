"""From the forms in which images and labels arrive (PIL, NumPy, torch) to the tensors used here."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
"""What decoders of images raise for damaged files."""
CHANNELS = (1, 3, 4)
"""Channel counts by which the channel axis is recognised."""


def image_to_tensor(image: Any) -> Tensor:
    """Turn one image into [C, H, W], uint8 or float32.

    Args:
        image: PIL image, or array or tensor [H, W], [C, H, W] or [H, W, C] with 1, 3 or 4 channels.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(image, Image.Image):
        return torch.from_numpy(pil_to_array(image)).permute(2, 0, 1)
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"An image is a PIL image, an array or a tensor; got {type(image).__name__}.")
    if image.ndim not in (2, 3):
        raise ValueError(f"An image is [H, W], [C, H, W] or [H, W, C]; got {tuple(image.shape)}.")
    return images_to_tensor(image[None])[0]


def pil_to_array(image: Image.Image) -> np.ndarray:
    """Turn a PIL image into uint8 [H, W, C]: one channel for grey ones, three for all others.

    Raises:
        ValueError: If its pixels are 32-bit numbers, which have no natural range.
    """
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    if image.mode in ("I", "F"):
        raise ValueError(f"images of mode {image.mode!r} (32 bits) have no natural range; save 8 or 16 bits")
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))[..., None]
    return np.array(image.convert("RGB"))


def images_to_tensor(images: np.ndarray | Tensor) -> Tensor:
    """Turn a stack of images into [N, C, H, W], uint8 or float32.

    Whole numbers in 0..255 become uint8, other floating types float32.

    Args:
        images: [N, H, W] (grey), [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels; a tensor
            [N, C, H, W] may have any number.

    Raises:
        ValueError: If the shape or the type cannot be read as images.
    """
    shape = tuple(images.shape)
    if len(shape) not in (3, 4):
        raise ValueError(f"Images must be [N, H, W], [N, C, H, W] or [N, H, W, C]; got the shape {shape}.")
    pixels = _to_pixel_type(images)
    if len(shape) == 3:
        return pixels[:, None]
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first != last:
        channels_last = last
    elif first or isinstance(images, Tensor):
        # Both axes could be it (or, for a tensor, neither): each library has its habit.
        channels_last = not isinstance(images, Tensor)
    else:
        raise ValueError(
            f"Cannot tell the channels of an array of shape {shape}: neither axis 1 nor axis 3 has 1, 3 or 4."
            " Pass a tensor [N, C, H, W]."
        )
    return pixels.permute(0, 3, 1, 2).contiguous() if channels_last else pixels


def labels_to_tensor(labels: Any) -> Tensor:
    """Turn labels into [N], int64.

    Args:
        labels: [N] or [N, 1] whole numbers: array, tensor or list.

    Raises:
        ValueError: If they are not whole numbers, or not one per image.
    """
    tensor = labels if isinstance(labels, Tensor) else _from_numpy(np.asarray(labels))
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        hint = " Turn one-hot rows into class numbers with argmax(axis=1)." if tensor.ndim == 2 else ""
        raise ValueError(
            f"Labels must be whole numbers [N]; got the shape {tuple(tensor.shape)}, {tensor.dtype}.{hint}"
        )
    return tensor.detach().long()


def split_item(item: Any, position: int) -> tuple[Any, int]:
    """Split one item of a data set into its image and its label.

    Raises:
        ValueError: If the item is not a pair with a whole number at the end.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        keys = f" with the keys {', '.join(map(repr, item))}" if isinstance(item, dict) else ""
        raise ValueError(
            f"Items of a data set are (image, label) pairs; item {position} is a {type(item).__name__}{keys}."
            " Wrap the data set in one that returns pairs."
        )
    image, label = item
    if isinstance(label, Tensor | np.ndarray | np.generic) and np.ndim(label) == 0:
        label = label.item()
    if not isinstance(label, int):
        raise ValueError(f"Labels are whole numbers; item {position} has {label!r} ({type(label).__name__}).")
    return image, int(label)


def _to_pixel_type(images: np.ndarray | Tensor) -> Tensor:
    pixels = images.detach() if isinstance(images, Tensor) else _from_numpy(images)
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.is_floating_point() or pixels.dtype == torch.bool:
        return pixels.float()
    if pixels.is_complex():
        raise ValueError(f"Images must be whole or floating numbers; got {pixels.dtype}.")
    if pixels.numel() and (int(pixels.min()) < 0 or int(pixels.max()) > 255):
        raise ValueError(
            f"Images of whole numbers must be in 0..255; got {int(pixels.min())}..{int(pixels.max())}. "
            "Scale them to uint8 or to floats first."
        )
    return pixels.to(torch.uint8)


def _from_numpy(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "buif":
        raise ValueError(f"Arrays must hold numbers; got the type {array.dtype}.")
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    # The copy keeps later changes of the caller's array (or a read-only buffer) out of the set.
    return torch.from_numpy(np.array(array, order="C", dtype=array.dtype.newbyteorder("=")))
