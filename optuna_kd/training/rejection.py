"""What ends a training, and not the study that it belongs to; the reason is the message."""

from __future__ import annotations


class LossRejected(Exception):
    """The loss of a training is not finite or explodes."""


class OutOfMemory(LossRejected):
    """A training needs more memory than there is, even with the smallest pieces of its batches."""
