"""Recipe cards: what a recipe is, what it was found for and what it brought, in one file that travels.

A card is plain JSON, `card.json`, with `card.md` beside it for people. Nothing here imports torch or optuna, and
nothing that a card says is looked up, opened or run: a card from a stranger is data.
"""

from optuna_kd.cards.card import OUTCOMES, RecipeCard, installed_versions, now, protocol_of
from optuna_kd.cards.checks import CardError
from optuna_kd.cards.facts import DataFacts, NetworkFacts, TaskFacts
from optuna_kd.cards.files import CARD_FILE, find_cards, load_card, load_recipe, save_card
from optuna_kd.cards.results import MethodResult, interval
from optuna_kd.cards.showing import printable
from optuna_kd.cards.similarity import distance

__all__ = [
    "CARD_FILE",
    "OUTCOMES",
    "CardError",
    "DataFacts",
    "MethodResult",
    "NetworkFacts",
    "RecipeCard",
    "TaskFacts",
    "distance",
    "find_cards",
    "installed_versions",
    "interval",
    "load_card",
    "load_recipe",
    "now",
    "printable",
    "protocol_of",
    "save_card",
]
