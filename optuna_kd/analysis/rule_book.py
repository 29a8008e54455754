"""The rules of thumb of Auto-KD and UniADS: what the papers say, and how a study can be held against it.

Auto-KD: Li, Dong, Wei and Yang, ICCV 2023, section 2.5, eight observations on the distillers that it found. UniADS: Lu
et al., AAAI 2024, "Search Results Analysis" (on four found distillers) and "Hyperparameter Importance Analysis" (on
its Fig. 3). Each was read off few recipes that a search had chosen, without the ones that it had not. A rule that
says two things is two here. Where a rule is about something that one study does not vary (the task, the family of the
teacher), it has no claim; what a study says of its options all the same is `aside`.
"""

from __future__ import annotations

from dataclasses import dataclass

from optuna_kd.analysis.claims import Best, Better, Claim, Depends, MattersMore
from optuna_kd.analysis.contrasts import Some


@dataclass(frozen=True)
class Rule:
    """A rule of thumb.

    Args:
        quote: What the paper says, shortened.
        source: Where.
        reading: As what it is checked.
        claims: How: the first that a study can test counts. Empty: no single study can test it.
        needs: What would test it.
        aside: What a study that cannot test it may say of its options.
    """

    quote: str
    source: str
    reading: str
    claims: tuple[Claim, ...]
    needs: str
    aside: Claim | None = None


_GLOBAL = ("global_transform", "features_transform", "transform_1", "transform_2", "transform_3")
_INTRA = ("intra_transform", *_GLOBAL[1:])
_INTER = ("inter_transform", *_GLOBAL[1:])
_NONE = Some(("none",))
_DEPTHS = ("depth_1", "depth_2", "depth_3")
_LOSS_WEIGHTS = ("features_weight", "embeddings_weight", "logits_weight")
_OPTIMISATION = ("batch_size", "lr")
_NORMALISING = ("batchnorm", "norm_N", "norm_C", "norm_H", "norm_W", "tanh")
_WIDE, _NARROW = Some(low=1.5), Some(high=1.0)
_ANY = "a study of the space auto-kd or uniads"
_JOINT = "a study of the space uniads, which searches the student too"
_TRAINING = "a study of the space uniads with training=True, which searches batch size and learning rate too"


def _auto_kd(number: int) -> str:
    return f"Auto-KD, section 2.5, rule {number}"


AUTO_KD = (
    Rule(
        "Channel-wise distillation operation is recommended for wider teacher-student networks.",
        _auto_kd(1),
        "channel instead of none is worth more with wide students (1.5 or more) than with narrow ones (1 or less)",
        (Depends(("features_transform",), Some(("channel",)), _NONE, "width", _WIDE, _NARROW),),
        f"{_JOINT}; or one study for a narrow and one for a wide pair of networks",
        Better(_INTER, Some(("channel",)), _NONE),
    ),
    Rule(
        "Multi-scale distillation ... can help to gain more in most cases, especially for downstream tasks.",
        _auto_kd(2),
        "multiscale is better than none",
        (Better(_INTRA, Some(("multiscale",)), _NONE),),
        _ANY,
    ),
    Rule(
        "Mask distillation operation is more appropriate for teacher-student with relatively large distillation gaps.",
        _auto_kd(3),
        "mask instead of none is worth more with narrow students (1 or less), which are further from their teacher",
        (Depends(("features_transform",), Some(("mask",)), _NONE, "width", _NARROW, _WIDE),),
        f"{_JOINT}; or one study for a small and one for a large gap between the networks",
        Better(_GLOBAL, Some(("mask",)), _NONE),
    ),
    Rule(
        "Attention distillation operation is more advantageous in heterogeneous teacher-student architectures.",
        _auto_kd(4),
        "attention instead of none is worth more where teacher and student are of different families",
        (),
        "one study for a pair of the same family, and one for a pair of different families",
        Better(_GLOBAL, Some(("attention", "satt", "catt", "natt")), _NONE),
    ),
    Rule(
        "Local distillation operations are recommended for multi-label or local information-critical tasks.",
        _auto_kd(5),
        "local instead of none is worth more for such tasks than for others",
        (),
        "one study of a task where small regions or several labels count, and one of another task",
        Better(_INTRA, Some(("local",)), _NONE),
    ),
    Rule(
        "Sample-wise distillation operation can benefit different models ...",
        _auto_kd(6),
        "sample is better than none",
        (Better(_INTER, Some(("sample",)), _NONE),),
        _ANY,
    ),
    Rule(
        "... but it is influenced by the corresponding task and batch size.",
        _auto_kd(6),
        "what sample is worth against none differs between batches of 128 or more and of 64 or less",
        (
            Depends(
                ("features_transform",),
                Some(("sample",)),
                _NONE,
                "batch_size",
                Some(low=128),
                Some(high=64),
                either=True,
            ),
        ),
        _TRAINING,
    ),
    Rule(
        "L_KL has better generalizability for different tasks, and L_Pearson is more practical for complex tasks.",
        _auto_kd(7),
        "as the distance of logits kl is better than pearson; of one task, which may be a complex one",
        (Better(("logit_distance",), Some(("kl",)), Some(("pearson",))),),
        "a study of the space auto-kd; for the whole rule, one for a simple and one for a complex task",
    ),
    Rule(
        "Adjusting the temperature coefficient is useful for most tasks ...",
        _auto_kd(8),
        "the best temperature is another one than 1",
        (Best(("temperature",), Some(low=2)),),
        f"{_ANY} with the temperature 1 among others",
    ),
    Rule(
        "... the optimal value of feature weights is generally between 1 and 25.",
        _auto_kd(8),
        "the best weight of the feature term is from 1 to 25",
        (Best(("feature_weight",), Some(low=1, high=25)), Best(("features_weight",), Some(low=1, high=25))),
        _ANY,
    ),
)

_ANALYSIS, _IMPORTANCE = "UniADS, Search Results Analysis", "UniADS, Hyperparameter Importance Analysis"

UNIADS = (
    Rule(
        'Some normalized-based methods are "batchnorm", "tanh", and "norm" [among the transforms found].',
        f"{_ANALYSIS}, transform",
        "transforms that normalise (batchnorm, norm_*, tanh) are better than none",
        (Better(("features_transform", "embeddings_transform", "logits_transform"), Some(_NORMALISING), _NONE),),
        "a study of the space uniads",
    ),
    Rule(
        'The most frequently occurring metrics are "cos", "kl" and "l2".',
        f"{_ANALYSIS}, distance",
        "the best distance is cosine, kl or l2 (mse)",
        (
            Best(("distance",), Some(("cosine", "kl", "mse"))),
            Best(("feature_distance",), Some(("kl", "l2"))),
        ),
        _ANY,
    ),
    Rule(
        "The values 16, 5, 1, and 0.5 frequently appear as loss weights.",
        f"{_ANALYSIS}, loss weight",
        "the best loss weights are from 0.5 to 16",
        (Best(_LOSS_WEIGHTS, Some(low=0.5, high=16)), Best(("feature_weight",), Some(low=0.5, high=16))),
        _ANY,
    ),
    Rule(
        "Relatively large values such as 16 and 8 are often chosen [as temperature].",
        f"{_ANALYSIS}, temperature",
        "the best temperature is 8 or more",
        (Best(("temperature",), Some(low=8)),),
        _ANY,
    ),
    Rule(
        "Wider ... networks tend to have good performance.",
        f"{_ANALYSIS}, architecture",
        "widths of 1.5 or more are better than those of 1 or less",
        (Better(("width",), _WIDE, _NARROW),),
        _JOINT,
    ),
    Rule(
        "... deeper networks tend to have good performance.",
        f"{_ANALYSIS}, architecture",
        "depths of 5 or more blocks are better than those of 3 or less",
        (Better(_DEPTHS, Some(low=5), Some(high=3)),),
        _JOINT,
    ),
    Rule(
        "The number of cells in the deeper layers of the network [has] larger importance.",
        f"{_ANALYSIS}, architecture, and Fig. 3",
        "depth_3 explains more of the differences than depth_1 and depth_2",
        (MattersMore(("depth_3",), ("depth_1", "depth_2")),),
        _JOINT,
    ),
    Rule(
        "The network's depth and width significantly impact the search results, particularly the network width.",
        f"{_IMPORTANCE} (1)",
        "width explains more of the differences than the depths",
        (MattersMore(("width",), _DEPTHS),),
        _JOINT,
    ),
    Rule(
        "The weights assigned to transformations and feature losses ... have a considerable impact.",
        f"{_IMPORTANCE} (2)",
        "loss weights and the transform of logits explain more of the differences than batch size and learning rate",
        (MattersMore((*_LOSS_WEIGHTS, "logits_transform"), _OPTIMISATION),),
        _TRAINING,
    ),
    Rule(
        "Some additional optimization parameters exhibit minimal influence.",
        f"{_IMPORTANCE} (3)",
        "width and depths explain more of the differences than batch size and learning rate",
        (MattersMore(("width", *_DEPTHS), _OPTIMISATION),),
        _TRAINING,
    ),
)

RULES = (*AUTO_KD, *UNIADS)
