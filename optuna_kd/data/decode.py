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


def decode_files(
    files: Sequence[ImageFile],
    *,
    image_size: int | None = None,
    cache_dir: Path | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Read images as uint8 [N, C, H, W]: one channel if all are grey, else three.

    Args:
        files: At least one.
        image_size: Side in pixels: the shorter side is resized to it and the centre cut out. Without it
            all images must have one size.
        cache_dir: Folder for the decoded array, under a name made from paths, sizes and times; None for none.
        threads: Threads that decode; None for one a core.

    Raises:
        ValueError: If a file cannot be read, or sizes differ without `image_size`.
    """
    cached = cache_file(cache_dir, _cache_key(files, image_size)) if cache_dir is not None else None
    if cached is not None and (arrays := load_arrays(cached, {"images": len(files)})) is not None:
        return arrays["images"]
    images = _decode(files, image_size, threads or os.cpu_count() or 1)
    if cached is not None:
        save_arrays(cached, images=images)
    return images


def _decode(files: Sequence[ImageFile], image_size: int | None, threads: int) -> np.ndarray:
    height, width = _read_image(files[0].path, image_size).shape[:2]
    images = np.empty((len(files), 3, height, width), dtype=np.uint8)

    def fill(start: int) -> bool:
        has_colour = False
        for position in range(start, min(start + _FILES_A_TASK, len(files))):
            image = _read_image(files[position].path, image_size)
            if image.shape[:2] != (height, width):
                raise ValueError(
                    f"Images differ in size: {files[0].path} is {width}x{height}, {files[position].path} is "
                    f"{image.shape[1]}x{image.shape[0]} (width x height). "
                    "Set image_size to resize and crop all."
                )
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


def _read_image(path: Path, image_size: int | None) -> np.ndarray:
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
