"""Image files to one array: decoded in threads, kept on disk for the next time where allowed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from optuna_kd.data.pixel_cache import CACHE_VERSION, cache_file, load_arrays, save_arrays
from optuna_kd.data.pixels import UNREADABLE, pil_to_array

_FILES_A_TASK = 128


@dataclass(frozen=True)
class ImageFile:
    """A file as it was listed, before it is read.

    Args:
        path: Where it is.
        size: Bytes.
        modified: Nanoseconds.
    """

    path: Path
    size: int
    modified: int


class TooLargeError(Exception):
    """Images take more memory than they may; `size` are the bytes of their pixels."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size:,} bytes of pixels")
        self.size = size


def decode_files(
    files: Sequence[ImageFile],
    *,
    image_size: int | None = None,
    cache_dir: Path | None = None,
    threads: int | None = None,
    limit: int | None = None,
) -> np.ndarray:
    """Read images as uint8 [N, C, H, W]: one channel if all are grey, else three.

    Args:
        files: At least one.
        image_size: Side in pixels: the shorter side is resized to it and the centre cut out. Without it
            all images must have one size.
        cache_dir: Folder for the decoded array, under a name made from paths, sizes and times; None for none.
        threads: Threads that decode; None for one a core.
        limit: Bytes that the pixels may take; None for any number.

    Raises:
        TooLargeError: If they take more, before they are decoded.
        ValueError: If a file cannot be read, or sizes differ without `image_size`.
    """
    cached = cache_file(cache_dir, _cache_key(files, image_size)) if cache_dir is not None else None
    if cached is not None and (arrays := load_arrays(cached, {"images": len(files)})) is not None:
        return arrays["images"]
    images = _decode(files, image_size, threads or os.cpu_count() or 1, limit)
    if cached is not None:
        save_arrays(cached, images=images)
    return images


def _decode(files: Sequence[ImageFile], image_size: int | None, threads: int, limit: int | None) -> np.ndarray:
    height, width = read_image(files[0].path, image_size).shape[:2]
    if limit is not None and (size := 3 * height * width * len(files)) > limit:
        raise TooLargeError(size)
    images = np.empty((len(files), 3, height, width), dtype=np.uint8)

    def fill(start: int) -> bool:
        has_colour = False
        for position in range(start, min(start + _FILES_A_TASK, len(files))):
            image = read_image(files[position].path, image_size)
            require_size(image, files[position], (height, width), files[0])
            has_colour |= image.shape[2] == 3
            images[position] = image.transpose(2, 0, 1)
        return has_colour

    pool = ThreadPoolExecutor(threads)
    try:
        colours = list(pool.map(fill, range(0, len(files), _FILES_A_TASK)))
    finally:
        # After an error (or Ctrl-C) nothing of what is still waiting should be decoded.
        pool.shutdown(cancel_futures=True)
    return images if any(colours) else images[:, :1].copy()


def require_size(image: np.ndarray, file: ImageFile, size: tuple[int, int], first: ImageFile) -> None:
    """Refuse an image [H, W, C] whose height and width are not those of the first.

    Raises:
        ValueError: With both.
    """
    height, width = image.shape[:2]
    if (height, width) != size:
        raise ValueError(
            f"Images differ in size: {first.path} is {size[1]}x{size[0]}, {file.path} is {width}x{height} (width x "
            "height). Set image_size to resize and crop all."
        )


def read_image(path: Path, image_size: int | None) -> np.ndarray:
    """Read one image as uint8 [H, W, C], with `image_size` as in `decode_files`.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image_size is not None:
                # JPEG decodes to a half, a quarter ... for free; twice the size asked leaves the quality.
                image.draft(None, (2 * image_size, 2 * image_size))
            pixels = pil_to_array(image)
    except UNREADABLE as error:
        raise ValueError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    return pixels if image_size is None else _resize_and_crop(pixels, image_size)


def _resize_and_crop(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width, channels = pixels.shape
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).reshape(size[1], size[0], channels)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    return resized[top : top + side, left : left + side]


def _cache_key(files: Sequence[ImageFile], image_size: int | None) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION};{image_size}".encode())
    for file in files:
        digest.update(f"\n{file.path.absolute()};{file.size};{file.modified}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
