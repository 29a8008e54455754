"""What a user takes home: loss terms for a loop of their own, and a finished student that predicts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from optuna_kd.data import Normalizer
from optuna_kd.distillers import Distiller
from optuna_kd.models import create_student, load_weights
from optuna_kd.recipe import Recipe
from optuna_kd.seeds import derive_seed
from optuna_kd.training.task import ImageClassification


def build_distiller(recipe: Recipe | str, task: ImageClassification, *, seed: int = 0) -> Distiller:
    """Build the loss of a recipe as a module, for a training loop of your own.

    Called with the knowledge of student and teacher, and labels, it returns named loss terms, weighted;
    their sum is the loss. Its parameters (adapters) are trained with the student and dropped afterwards.

    Args:
        recipe: What to train with: a `Recipe`, or its line.
        task: Says which maps are compared.
        seed: Of adapters and random masks.

    Raises:
        optuna_kd.distillers.InvalidChainError: If the recipe cannot be built on these maps.

    Example:
        >>> distiller = build_distiller(recipe, task)                       # doctest: +SKIP
        >>> student = task.make_student(seed=0)                             # doctest: +SKIP
        >>> observe = task.observe(student)                                 # doctest: +SKIP
        >>> images = task.prepare(raw_images)                               # doctest: +SKIP
        >>> terms = distiller(observe(images), task.teacher_knowledge(images), labels)  # doctest: +SKIP
        >>> sum(terms.values()).backward()                                  # doctest: +SKIP
    """
    recipe = Recipe.from_string(recipe) if isinstance(recipe, str) else recipe
    task = task.for_recipe(recipe)
    distiller = Distiller(
        recipe.distiller,
        [task.student_layer.shape],
        [task.teacher_layer.shape],
        seed=derive_seed(seed, "distiller"),
    )
    return distiller.to(task.device)


class Student(nn.Module):
    """A trained student with its normalisation: raw images in, logits out.

    Args:
        network: The plain network; `student.pt` is its `state_dict`.
        normalizer: What its images are prepared with.
        image_shape: (C, H, W) of the images that it was trained on.
        class_names: One per class, where the data had names.
    """

    def __init__(
        self,
        network: nn.Module,
        normalizer: Normalizer,
        image_shape: tuple[int, int, int],
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network, self.normalizer = network, normalizer
        self.image_shape, self.class_names = image_shape, class_names

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits [N, K] of raw images [N, C, H, W], uint8 or float in [0, 1].

        Raises:
            ValueError: For images of another shape than those that it was trained on.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"This student takes images [N, {wanted}]; got {list(images.shape)}.")
        logits: Tensor = self.network(self.normalizer(images))
        return logits


def load_student(directory: str | Path) -> Student:
    """Load the student of a finished search, ready to predict.

    Args:
        directory: The folder with `student.pt`, `recipe.json` and `summary.json`.

    Raises:
        ValueError: If a file is missing, or the student is not a registered model (then load `student.pt`
            into your own class: it is a plain `state_dict`).
    """
    folder = Path(directory)
    folder = folder.parent if folder.name == "student.pt" else folder
    if not (folder / "recipe.json").exists():
        raise ValueError(
            f"{folder} is not the folder of a finished search: it holds no recipe.json, which says what the network in "
            "student.pt is. The two, and summary.json, belong together."
        )
    recipe = Recipe.load(folder / "recipe.json")
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"Cannot read {folder / 'summary.json'}: {error}.") from None
    if recipe.student is None:
        raise ValueError(
            f"The student in {folder} is a class of your own. Load it with "
            "model.load_state_dict(torch.load('student.pt', weights_only=True))."
        )
    channels, height, width = summary["student"]["image_shape"]
    try:
        network = create_student(
            recipe.student,
            num_classes=summary["student"]["classes"],
            in_channels=channels,
            input_size=(height, width),
        )
    except ValueError as error:
        raise ValueError(
            f"The student {recipe.student} in {folder} is a class of your own ({error}). Load it with "
            "model.load_state_dict(torch.load('student.pt', weights_only=True))."
        ) from None
    load_weights(network, folder / "student.pt")
    scale = summary["preprocessing"]["normalize"]
    normalizer = Normalizer(tuple(scale["mean"]), tuple(scale["std"]))
    shape = (channels, height, width)
    return Student(network, normalizer, shape, tuple(summary["student"]["class_names"])).eval()


def export_onnx(directory: str | Path, file: str | Path) -> Path:
    """Write the student of a finished search as ONNX, normalisation included; the batch size stays free.

    Args:
        directory: The folder of the search.
        file: Where to write. Its input is `images` [N, C, H, W], float in [0, 1]; its output is `logits`.

    Raises:
        ValueError: If the student cannot be loaded, or the ONNX packages are not installed.
    """
    student = load_student(directory)
    summary = json.loads((Path(directory) / "summary.json").read_text(encoding="utf-8"))
    example = torch.zeros(2, *summary["student"]["image_shape"])
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.onnx.export(
            student,
            (example,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except ImportError as error:
        raise ValueError(f'ONNX export needs two more packages ({error}): pip install "optuna-kd[onnx]".') from None
    return path
