"""Sparse training: random masks over a student's weights, moved to where the gradient is large (RigL).

Auto-KD, section 2.3 (half of the student's weights zero while recipes are scored); Evci et al., "Rigging the
Lottery: Making All Tickets Winners" (ICML 2020). Dense kernels multiply the zeros too: this saves parameters, not
seconds. For seconds see `narrow.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from optuna_kd.models import count_parameters, unwrap
from optuna_kd.registry import suggest_name
from optuna_kd.seeds import derive_seed
from optuna_kd.training.masks import apportion, draw_mask, erk_densities, move_mask

logger = logging.getLogger(__name__)

DISTRIBUTIONS = ("uniform", "erk")
LEAST_EVERY, MOST_EVERY = 5, 100  # steps between two changes of the masks


@dataclass(frozen=True)
class Density:
    """Which share of the weights may differ from zero, in (0, 1].

    Args:
        overall: Of all masked layers together.
        layers: Of each masked layer, by the name of its weight.
    """

    overall: float
    layers: dict[str, float]


class SparseWeights:
    """Keeps a share of a student's weights at zero through a training, and moves the zeros while it runs.

    The masks are drawn and applied at once; from then on `after_step` follows every step of the optimizer. Every
    `every` steps, up to the share `until` of the training, each layer gives up the active weights that are smallest,
    and as many become active where the gradient of this very step is largest: α/2 (1 + cos(π t / T_end)) of its active
    weights, with α = `drop` and T_end = `until` · `steps`. A layer always has the same number of active weights. New
    ones start at zero, without momentum or moments.

    Masked are the weights of convolutions and linear layers that are trained, but for the first such layer (in the
    order of registration) and depthwise convolutions; `dense_layers` names these. Biases and norms stay dense.

    The weights keep their memory format and dtype, and the masks follow them: move the student before. A copy of the
    student made later is not masked. To go on from a checkpoint, build this for the fresh student, then load both.

    Args:
        model: The student; it may be wrapped.
        sparsity: Share of zeros among the masked weights; in [0, 1). 0 masks nothing and costs nothing.
        steps: Length of the whole training, in steps of the optimizer.
        seed: Of the masks; the global generators are not touched.
        distribution: "uniform", the same share in every layer; or "erk" (Erdős-Rényi-Kernel): the density of a
            layer is proportional to (sum of the sides of its weight) / (product of the sides), capped at 1.
        drop: α, the share of the active weights that the first change would replace at t = 0; in [0, 1].
        every: Steps between two changes (ΔT); None takes a twentieth of the training, at least 5 and at most 100.
        until: Share of the training after which the masks stay; in (0, 1].
        regrow: False keeps the first masks.

    Raises:
        ValueError: For a number out of range, or an unknown distribution.

    Example:
        >>> student = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        >>> sparse = SparseWeights(student, 0.5, steps=100, seed=0)
        >>> student(torch.ones(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> sparse.after_step(optimizer)  # before the gradients are cleared
        >>> int((student[2].weight != 0).sum())
        8
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float = 0.5,
        *,
        steps: int,
        seed: int,
        distribution: Literal["uniform", "erk"] = "uniform",
        drop: float = 0.3,
        every: int | None = None,
        until: float = 0.75,
        regrow: bool = True,
    ) -> None:
        _check_share("sparsity", sparsity, "[0, 1)")
        _check_share("drop", drop, "[0, 1]")
        _check_share("until", until, "(0, 1]")
        _check_count("steps", steps)
        if distribution not in DISTRIBUTIONS:
            raise suggest_name("distribution", distribution, DISTRIBUTIONS)
        # RigL: ΔT = 100, of 32,000 steps and more. A proxy may have some hundred steps altogether and would see one
        # change or none; a twentieth gives it fifteen. Five at least, because a new weight needs steps to grow in.
        every = max(LEAST_EVERY, min(MOST_EVERY, steps // 20)) if every is None else every
        _check_count("every", every)
        self.steps, self.drop, self.every, self.regrow = steps, drop, every, regrow
        self.last_change = until * steps
        self.step = 0
        self._parameters = count_parameters(model)
        self._weights, self.dense_layers = _maskable(unwrap(model)) if sparsity else ({}, ())
        if sparsity and not self._weights:
            logger.warning(
                "Nothing to mask in %s: it has no trained convolution or linear layer after the first one, and trains "
                "dense. sparsity=0 says so without this warning.",
                type(unwrap(model)).__name__,
            )
        shapes = [weight.shape for weight in self._weights.values()]
        density = 1 - sparsity
        shares = erk_densities(shapes, density) if distribution == "erk" else [density] * len(shapes)
        counts = apportion([shape.numel() for shape in shapes], shares)
        self._active = dict(zip(self._weights, counts, strict=True))
        self._masks = {
            name: draw_mask(weight, self._active[name], derive_seed(seed, "mask", name))
            for name, weight in self._weights.items()
        }
        self._warned = False
        self._apply()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the zeros back, in the weights and in what the optimizer remembers of them; change masks when it is time.

        Gradients that are missing or not finite leave the mask of their layer as it is. A common factor in all
        gradients (clipping, loss scaling) changes nothing.

        Args:
            optimizer: Has just stepped; the gradients of that step are still in place.
        """
        self.step += 1
        if not self._masks:
            return
        self._apply(optimizer)
        if share := self.drop_share(self.step):
            self._move(share)
            self._apply(optimizer)

    def drop_share(self, step: int) -> float:
        """Give the share of active weights that is replaced after a step, counted from 1; 0 at most steps."""
        if not self.regrow or step % self.every or not 0 < step < self.last_change:
            return 0.0
        return self.drop / 2 * (1 + math.cos(math.pi * step / self.last_change))

    def density(self) -> Density:
        """Give the share of active weights; without masks there are no layers and it is 1."""
        sizes = {name: weight.numel() for name, weight in self._weights.items()}
        overall = sum(self._active.values()) / sum(sizes.values()) if sizes else 1.0
        return Density(overall, {name: self._active[name] / size for name, size in sizes.items()})

    def nonzero_parameters(self) -> int:
        """Count the parameters of the student that may differ from zero: active weights and all that is dense."""
        masked = sum(weight.numel() for weight in self._weights.values())
        return self._parameters - masked + sum(self._active.values())

    def state_dict(self) -> dict[str, Any]:
        """Give the steps taken, and the masks as booleans by the name of their weight."""
        return {"step": self.step, "masks": {name: mask.bool() for name, mask in self._masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over steps and masks, and apply the masks; the weights and the optimizer are loaded separately.

        Raises:
            ValueError: If the masks belong to other layers or shapes.
        """
        masks: Mapping[str, Tensor] = state["masks"]
        if differing := sorted(set(masks) ^ set(self._masks)):
            raise ValueError(f"The masks are of another student or sparsity: {differing} are on one side only.")
        for name, mask in masks.items():
            if mask.shape != self._masks[name].shape:
                raise ValueError(
                    f"The mask of {name} is {list(mask.shape)}, but the weight is {list(self._masks[name].shape)}."
                )
        for name, mask in masks.items():
            self._masks[name].copy_(mask)
            self._active[name] = int(mask.sum())
        self.step = int(state["step"])
        self._apply()

    @torch.no_grad()
    def _apply(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        tensors: list[Tensor] = []
        masks: list[Tensor] = []
        for name, weight in self._weights.items():
            state = optimizer.state.get(weight, {}) if optimizer is not None else {}
            kept = [value for value in state.values() if isinstance(value, Tensor) and value.shape == weight.shape]
            tensors += [weight, *kept]
            masks += [self._masks[name]] * (1 + len(kept))
        if tensors:
            torch._foreach_mul_(tensors, masks)  # one call for all layers, as in torch's own optimizers

    @torch.no_grad()
    def _move(self, share: float) -> None:
        # Paper: the change takes the place of the optimizer's step. Here: it follows the step, because a short proxy
        # has none to give away. Before it, the masked weights have been zero, yet their gradient is that of a dense
        # layer: nothing in the forward pass stands between them and the loss.
        missing = 0
        for name, weight in self._weights.items():
            if weight.grad is None:
                missing += 1
            elif torch.isfinite(weight.grad).all():
                mask = self._masks[name]
                mask.copy_(move_mask(mask.bool(), weight, weight.grad, int(share * self._active[name])))
        if missing == len(self._weights) and not self._warned:
            self._warned = True
            logger.warning(
                "No gradient to move the masks by: call after_step before zero_grad. regrow=False keeps the masks and "
                "silences this."
            )


def _maskable(model: nn.Module) -> tuple[dict[str, nn.Parameter], tuple[str, ...]]:
    """Give the weights to mask, and the names of the trained weights that stay dense, each tensor once."""
    # RigL keeps the first layer dense (uniform distribution): it is tiny, and every output depends on its few
    # inputs. RigL does the same for ERK only where the formula fills the layer, which at 50 % it does; so here always.
    # The classifier is masked, as in RigL: it has a fan-in like any other layer. Depthwise convolutions stay dense, as
    # in RigL's MobileNet: nine weights make a channel, and a random mask would leave some with two.
    masked: dict[str, nn.Parameter] = {}
    dense: list[str] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        # A weight that a parametrization computes is not a parameter and cannot be kept at zero from here.
        weight = module._parameters.get("weight") if isinstance(module, _ConvNd | nn.Linear) else None
        if weight is None or id(weight) in seen:
            continue
        first, depthwise = not seen, isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels
        seen.add(id(weight))
        path = f"{name}.weight" if name else "weight"
        if not weight.requires_grad:
            continue  # frozen weights have their values for a reason
        if first or depthwise:
            dense.append(path)
        else:
            masked[path] = weight
    return masked, tuple(dense)


def _check_share(name: str, value: object, allowed: str) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        ends: dict[float, bool] = {0: allowed[0] == "[", 1: allowed[-1] == "]"}
        if 0 < value < 1 or ends.get(value, False):
            return
    raise ValueError(f"{name} is a share in {allowed}; got {value!r}.")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a whole number of optimizer steps >= 1; got {value!r}.")
