"""Aligned knowledge: the maps of the clean image are moved and mirrored as the image is, and how far off that is.

Auto-KD, section 2.3, stores one forward pass and applies "the same data augmentation" to it. A network does not
quite commute with that: its borders are padded at every layer, strides see other pixels after a shift by less than
a whole map pixel, and its filters are not symmetric. So the error is measured on a sample, and told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.seeds import derive_seed
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import chunks, clean_images, view_images

SAMPLE = 256  # images on which the error is measured


@dataclass(frozen=True)
class AlignmentError:
    """How far aligned knowledge is from what the teacher says about the augmented images.

    Args:
        maps: ‖aligned − true‖ / ‖true‖ over all maps of the sample.
        kl: KL(true ‖ aligned) of the class probabilities, mean over the sample, in nats.
        agreement: Share of images whose most likely class is the same, in [0, 1].
        images: Size of the sample.
    """

    maps: float
    kl: float
    agreement: float
    images: int

    def __str__(self) -> str:
        return (
            f"maps {100 * self.maps:.1f} % off, logits KL {self.kl:.3f} nats, same class for "
            f"{100 * self.agreement:.1f} % (against the teacher on {self.images} augmented images)"
        )

    def figures(self) -> dict[str, float]:
        """Give plain data."""
        return asdict(self)


def align_maps(maps: Tensor, params: Tensor, pad: int, image_size: tuple[int, int]) -> Tensor:
    """Move and mirror maps [B, C, h, w] as `Augmentation.apply` does images.

    A shift by s pixels of the image is one by s·h/H pixels of the map, bilinear between them. What comes in from
    outside is zero: on the last layers of ResNets, whose maps are mostly zero at the borders after a ReLU, that is
    closer to the truth than the nearest pixel (56 % against 59 % off for a ResNet-20 on CIFAR-10; in the middle of
    the network 65 % both).

    Args:
        maps: Of the clean images.
        params: [B, 3], (dy, dx, flip): the rows of a table from `Augmentation.draw`.
        pad: `Augmentation.pad`; shifts are dy - pad and dx - pad.
        image_size: (H, W) of the images.
    """
    height, width = maps.shape[2:]
    dy, dx, flip = params.to(maps.device).unbind(dim=1)
    rows = torch.arange(height, device=maps.device) + ((dy - pad) * (height / image_size[0]))[:, None]
    columns = torch.arange(width, device=maps.device).expand(len(maps), -1)
    columns = torch.where(flip.bool()[:, None], width - 1 - columns, columns)
    columns = columns + ((dx - pad) * (width / image_size[1]))[:, None]
    # grid_sample counts from -1 to 1, from edge to edge.
    y = (2 * rows + 1) / height - 1
    x = (2 * columns + 1) / width - 1
    shape = (len(maps), height, width)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    return F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


@torch.no_grad()
def measure_alignment(task: ImageClassification, images: Tensor | None = None, sample: int = SAMPLE) -> AlignmentError:
    """Compare what aligned knowledge would be with what the teacher says, in a view drawn for that.

    Takes two forward passes of the teacher for each image of the sample.

    Args:
        task: The task; its training images must be the same at every read.
        images: [N], training images to draw the sample from; None for all.
        sample: How many.
    """
    images = torch.arange(len(task.train_set)) if images is None else images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive_seed("alignment")))
    chosen, view = images[order[:sample]], derive_seed("alignment view")
    table, (_, height, width) = task.view_table(view), task.image_shape
    off, size, divergence, same = 0.0, 0.0, 0.0, 0
    for part in chunks(len(chosen)):
        true = task.teacher_knowledge(view_images(task, view, chosen[part]))
        clean = task.teacher_knowledge(clean_images(task, chosen[part]))
        aligned = align_maps(clean.features[0], table[chosen[part]], task.augmentation.pad, (height, width))
        truth = true.features[0].double()
        off += float((aligned.double() - truth).square().sum())
        size += float(truth.square().sum())
        p, q = true.logits.double().log_softmax(dim=1), clean.logits.double().log_softmax(dim=1)
        divergence += float((p.exp() * (p - q)).sum())
        same += int((p.argmax(dim=1) == q.argmax(dim=1)).sum())
    count = len(chosen)
    return AlignmentError((off / size) ** 0.5 if size else 0.0, max(0.0, divergence) / count, same / count, count)
