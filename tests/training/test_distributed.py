"""Two processes that train one student: as one would, with the same end on both, and never waiting for each other."""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pair_of_ranks import Pair

from optuna_kd.recipe import Recipe
from optuna_kd.training import join_ranks
from optuna_kd.training.ranks import ALONE


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two ranks, which all tests here share."""
    running = Pair()
    yield running
    running.close()


@pytest.mark.parametrize(
    ("recipe", "changes", "config"),
    [
        ("none|l2*5 + kl@4*1", {}, {}),
        ("none|l2*5 + kl@4*1", {"batch_size": 15}, {}),
        ("none|l2*5 + kl@4*1", {"optimizer": "adamw", "lr": 0.01, "stored": True}, {}),
        ("multiscale|l2*5 + kl@4*1", {}, {"normalise": "initial", "warmup": 0.5}),
        ("labels", {"sparsity": 0.5}, {}),
        ("none|l2*5 + kl@4*1", {"changing": True}, {}),
    ],
    ids=["even", "uneven", "adamw", "normalised", "sparse", "streaming"],
)
def test_two_train_as_one(pair: Pair, recipe: str, changes: dict[str, Any], config: dict[str, Any]) -> None:
    pair.run("train_as_alone", recipe, changes, config)


def test_all_begin_with_the_student_of_rank_0(pair: Pair) -> None:
    first, second = pair.run("same_start")
    assert first == second


def test_gradients_are_added_up_where_there_are_any(pair: Pair) -> None:
    wanted = [[[6.0, 6.0], [5.0, 2.0], [1.0, 1.0]], {"first": 1.5, "second": 40.0}]
    assert pair.run("exchange") == [wanted, wanted]


def test_every_term_has_the_gradient_that_it_has_in_one_process(pair: Pair) -> None:
    first, second = pair.run("gradients_of_every_term")
    assert first == second
    assert len(first) > 50
    assert {"embeddings renyi*3", "sample|gl2*3", "pearson@1*3"} <= set(first)


def test_gradients_are_those_of_torchs_own_wrapper(pair: Pair) -> None:
    pair.run("gradients_of_torchs_wrapper")


def test_running_statistics_are_averaged(pair: Pair) -> None:
    pair.run("statistics")


def test_ranks_draw_something_else_each(pair: Pair) -> None:
    (seed, state), (other_seed, other_state) = pair.run("draws")
    assert seed != other_seed
    assert state != other_state


def test_fifty_rounds_end_alike_and_at_the_same_step(pair: Pair) -> None:
    first, second = pair.run("many_ends", 50)
    assert first == second
    ends = collections.Counter(how for how, *_ in first)
    assert set(ends) == {"over", "pruned", "stopped", "non-finite loss: logits is nan"}
    assert min(ends.values()) >= 3


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "LossRejected: non-finite loss: cross_entropy is nan"),
        ("rejected", "LossRejected: made up"),
        ("dead", "DeadTermError: The distillation term 'logits' (none|kl) is made up. It would train nothing"),
    ],
)
def test_what_ends_a_training_on_one_rank_ends_it_on_both(pair: Pair, kind: str, said: str, rank: int) -> None:
    first, second = pair.run("failing", kind, rank)
    assert first == second
    assert first.startswith(said)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_is_told_to_the_other(pair: Pair, rank: int) -> None:
    answers = pair.run("failing", "bug", rank)
    assert answers[rank] == "KeyError: 'made up'"
    assert answers[1 - rank] == f"RankFailedError: Rank {rank} has failed: KeyError: 'made up'"


def test_short_memory_on_one_rank_cuts_its_slices(pair: Pair) -> None:
    assert pair.run("short_memory", [32, 8]) == [1, 2]


def test_too_little_memory_on_one_rank_ends_both(pair: Pair) -> None:
    reason = "OutOfMemory: out of memory with 8 of 16 images at a time"
    assert pair.run("short_memory", [32, 4]) == [reason, reason]
    reason = "OutOfMemory: out of memory while building the student: CUDA out of memory."
    assert pair.run("short_memory_while_building") == [reason, reason]


def test_a_batch_needs_an_image_for_each(pair: Pair) -> None:
    reason = "A batch of 1 images cannot be shared by 2 processes: start fewer, or use larger batches."
    assert pair.run("too_few_images") == [reason, reason]


def test_one_that_is_asked_to_stop_stops_both_and_rank_0_keeps_the_state(pair: Pair, tmp_path: Path) -> None:
    pair.run("interrupted", str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_decisions_are_made_on_rank_0(pair: Pair) -> None:
    first, second = pair.run("agreements")
    unserialised = "TypeError: Ranks agree on plain JSON; got object."
    assert first == [
        "LossRejected: too large",
        "KeyError: 'made up'",
        unserialised,
        "KeyError: 'made up'",
        "RankFailedError: Rank 1 has failed: KeyError: 'made up'",
    ]
    assert second == [
        "LossRejected: too large",
        "RankFailedError: Rank 0 has failed: KeyError: 'made up'",
        f"RankFailedError: Rank 0 has failed: {unserialised}",
        "RankFailedError: Rank 0 has failed: KeyError: 'made up'",
        "KeyError: 'made up'",
    ]


def test_ranks_that_were_given_other_things_refuse(pair: Pair) -> None:
    first, second = pair.run("other_facts")
    assert second == "ValueError: Rank 1 was given something else than rank 0: data: 'abc1' here, 'abc0' on rank 0."
    assert first == f"RankFailedError: Rank 1 has failed: {second}"


def test_each_rank_has_a_device_of_its_own(pair: Pair) -> None:
    first, second = pair.run("devices")
    assert first[:5] == ["cpu", "cpu", "cuda:0", "cuda:0", "cuda:0"]
    assert second[:4] == ["cpu", "cpu", "cuda:1", "cuda:1"]
    assert second[4].startswith("Each process takes a GPU of its own, but this is number 2 on a machine with 1")
    assert second[5] == "Several processes cannot share 'cuda:1': say --device cuda, and each takes its own."
    assert second[6] == "Several processes train on CPUs or CUDA devices; got 'mps'."


def test_a_group_that_is_there_is_used(pair: Pair) -> None:
    pair.run("same_group_again")


def test_several_trainings_go_on_side_by_side(pair: Pair) -> None:
    pair.run("side_by_side")


def test_a_whole_distillation_has_one_result(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.run("whole_distillation", str(tmp_path / "out"))
    assert first == second
    _, runs, told, _ = first
    assert told == [0, 1]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [run["test_accuracy"] for run in summary["runs"]] == [run["test_accuracy"] for run in runs]
    assert Recipe.load(tmp_path / "out" / "recipe.json") == Recipe.from_string("none|l2*5 + kl@4*1")
    assert (tmp_path / "out" / "student.pt").exists()


def test_trials_of_a_study_are_pruned_on_all_ranks(pair: Pair) -> None:
    first, second = pair.run("trials", 12)
    assert first == second
    assert len(first) == 12
    assert len({epoch for _, epoch, _ in first}) > 1


def test_a_rank_that_is_killed_does_not_leave_the_other_waiting(pair: Pair, tmp_path: Path) -> None:
    pair.run("too_few_images")  # both are up
    started = time.monotonic()
    pair.begin("die", str(tmp_path))
    said = pair.answer(0)
    assert time.monotonic() - started < 30
    assert said.startswith("RankLostError: Another of the processes that train together has ended or hangs: ")
    assert (tmp_path / "a.ckpt").exists()  # to go on from
    with pytest.raises(AssertionError, match="Rank 1 has ended with 9"):
        pair.answer(1)


def test_a_process_on_its_own_has_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "nowhere")
    with join_ranks() as ranks:
        assert ranks is ALONE
    batch, parameter = torch.arange(5), torch.nn.Parameter(torch.ones(2))
    assert ALONE.part(batch) is batch
    assert (ALONE.rank, ALONE.size, ALONE.leads, ALONE.device("cuda:1")) == (0, 1, True, "cuda:1")
    assert ALONE.agree(lambda: batch) is batch
    assert [ALONE.any(False), ALONE.any(True)] == [False, True]
    assert ALONE.exchange([parameter], ["total"])(lambda: {"total": batch}) == {"total": batch}
    assert ALONE.state_of_leader(lambda: pytest.fail("nobody asks")) is None
    ALONE.require_same(lambda: pytest.fail("nobody asks"))
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError
