"""Terms that cannot teach are named before they waste a training; points of the space, before a study."""

from __future__ import annotations

import pickle

import pytest
import torch

from optuna_kd.distillers import DeadTermError, Distiller, find_dead_terms, probe_cells, probe_points
from optuna_kd.models.knowledge import Knowledge
from optuna_kd.recipe import DistillerConfig, Recipe


def draw(shape: tuple[int, int, int], *, batch: int = 8, seed: int = 0) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    features, logits = (torch.randn(batch, *size, generator=generator) for size in (shape, (10,)))
    return Knowledge(features=(features,), logits=logits)


def build(text: str, student: tuple[int, int, int], teacher: tuple[int, int, int], **options: str) -> Distiller:
    return Distiller(DistillerConfig(Recipe.from_string(text).distiller.terms, **options), [student], [teacher])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("local>channel|kl*1 + kl@4*1", "is zero"),
        ("local>channel|l2*1 + kl@4*1", "is constant"),
        ("mask>local|gl2*1 + kl@4*1", "is zero"),
    ],
)
def test_terms_that_a_small_map_kills_are_named(text: str, reason: str) -> None:
    shape = (6, 2, 2)
    distiller, student, teacher = build(text, shape, shape), draw(shape), draw(shape, seed=1)
    assert list(find_dead_terms(distiller, student, teacher)) == ["features"]
    with pytest.raises(DeadTermError, match=f"'features'.*{reason}") as caught:
        distiller.check_terms(student, teacher)
    assert pickle.loads(pickle.dumps(caught.value)).terms == caught.value.terms


@pytest.mark.parametrize("text", ["attention>multiscale>channel|kl*5 + pearson@4*1", "mask|gl2*1 + kl@1*1"])
@pytest.mark.parametrize("teacher_shape", [(6, 4, 4), (8, 8, 8)])
def test_live_terms_pass_and_the_check_changes_nothing(text: str, teacher_shape: tuple[int, int, int]) -> None:
    distiller = build(text, (6, 4, 4), teacher_shape)
    student, teacher = draw((6, 4, 4)), draw(teacher_shape, seed=1)
    before = {name: str(value) for name, value in distiller.state_dict().items()}
    random_state = distiller.generator.get_state()
    distiller.check_terms(student, teacher)
    assert {name: str(value) for name, value in distiller.state_dict().items()} == before
    assert torch.equal(distiller.generator.get_state(), random_state)
    assert distiller.training


def test_a_student_that_equals_its_teacher_is_not_dead() -> None:
    shape = (6, 4, 4)
    knowledge = draw(shape)
    build("none|l2*1 + kl@4*1", shape, shape).check_terms(knowledge, knowledge)


def test_a_student_that_equals_its_teacher_does_not_hide_a_dead_term() -> None:
    shape = (6, 2, 2)
    knowledge = draw(shape)
    assert list(find_dead_terms(build("local>channel|l2*1 + kl@4*1", shape, shape), knowledge, knowledge)) == [
        "features"
    ]


def test_a_silent_student_is_dead() -> None:
    shape = (6, 4, 4)
    teacher = draw(shape)
    silent = Knowledge((torch.zeros(8, *shape),), teacher.logits)
    assert list(find_dead_terms(build("sample|gl2*1", shape, shape), silent, teacher)) == ["features"]


def test_terms_of_weight_zero_are_meant_to_be_zero() -> None:
    shape = (6, 2, 2)
    assert find_dead_terms(build("local>channel|kl*0", shape, shape), draw(shape), draw(shape, seed=1)) == {}


def test_losses_that_are_not_finite_are_not_called_dead() -> None:
    shape = (6, 4, 4)
    student = draw(shape)
    student.features[0][0] = float("nan")
    assert find_dead_terms(build("none|l2*1", shape, shape), student, draw(shape, seed=1)) == {}


def test_normalising_a_dead_term_names_it() -> None:
    shape = (6, 2, 2)
    distiller = build("local>channel|kl*1", shape, shape, normalise="initial")
    student = draw(shape)
    student.features[0].requires_grad_()
    with pytest.raises(DeadTermError, match="'features'"):
        distiller(student, draw(shape, seed=1))


def test_nine_cells_are_dead_on_2x2_maps() -> None:
    dead = probe_cells((16, 2, 2), (64, 2, 2))
    assert len(dead) == 9
    assert {cell[1:] for cell in dead} == {
        ("local", "channel", "kl"),
        ("local", "channel", "l2"),
        ("local", "none", "gl2"),
    }


@pytest.mark.parametrize("size", [4, 5, 7, 8, 32])
def test_no_cell_is_dead_from_4x4_on(size: int) -> None:
    assert probe_cells((16, size, size), (64, 2 * size, size)) == {}


def test_cells_that_cannot_be_computed_are_dead_with_their_reason() -> None:
    dead = probe_cells((16, 1, 1), (16, 4, 4))
    assert all(cell in dead for cell in dead if cell[1] == "local")
    assert "2x2 patches" in dead[("none", "local", "sample", "gl2")]
    assert ("none", "none", "sample", "gl2") not in dead
    assert ("none", "none", "channel", "kl") in dead


def test_a_single_channel_kills_what_compares_channels() -> None:
    dead = probe_cells((16, 4, 4), (1, 4, 4))
    assert {cell[2:] for cell in dead if cell[1] == "none"} == {("none", "kl"), ("channel", "gl2")}


@pytest.mark.parametrize(("shape", "classes"), [((3, 2, 2), 3), ((16, 4, 4), 10), ((64, 32, 32), 100)])
def test_no_point_of_uniads_is_dead_from_2x2_maps_three_channels_and_three_classes_on(
    shape: tuple[int, int, int], classes: int
) -> None:
    assert probe_points(shape, shape, classes) == {}


def test_two_classes_have_one_difference_and_thus_no_correlation() -> None:
    dead = probe_points((16, 4, 4), (16, 4, 4), 2)
    assert {knowledge for knowledge, _, _ in dead} == {"logits"}
    assert {transform for _, transform, distance in dead if distance == "row_pearson"} >= {"none", "softmax_C"}
    assert {distance for _, _, distance in dead} == {"row_pearson", "correlation", "cosine"}
    assert [point for point in dead if point[2] == "cosine"] == [("logits", "scale", "cosine")]  # always (0, 1)


def test_flat_maps_kill_what_needs_height() -> None:
    dead = probe_points((8, 1, 4), (8, 4, 4), 10)
    assert {transform for _, transform, _ in dead} == {"local", "norm_H"}
    assert "2x2 patches" in dead["features", "local", "mse"]
    assert dead["features", "norm_H", "cosine"].startswith("is constant")


def test_a_batch_of_one_has_no_relations() -> None:
    dead = probe_points((8, 4, 4), (8, 4, 4), 10, batch=1)
    for knowledge in ("features", "embeddings", "logits"):
        assert (knowledge, "none", "correlation") in dead
        assert (knowledge, "softmax_N", "mse") in dead
        assert (knowledge, "none", "mse") not in dead
