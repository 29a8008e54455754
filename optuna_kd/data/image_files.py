"""Image files that are too many to hold: listed, and read one by one when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_kd.data.decode import ImageFile, read_image, require_size


class ImageFiles:
    """A map-style data set of image files, as colour images [H, W, 3].

    Args:
        files: At least one.
        labels: [N], int64.
        image_size: As in `decode_files`.
    """

    def __init__(self, files: Sequence[ImageFile], labels: np.ndarray, image_size: int | None) -> None:
        self._files, self._labels, self._image_size = files, labels, image_size
        self._size = read_image(files[0].path, image_size).shape[:2]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Read an image.

        Raises:
            ValueError: If the file cannot be read, or the image differs in size from the first.
        """
        image = read_image(self._files[index].path, self._image_size)
        require_size(image, self._files[index], self._size, self._files[0])
        return image if image.shape[2] == 3 else image.repeat(3, axis=2), int(self._labels[index])
