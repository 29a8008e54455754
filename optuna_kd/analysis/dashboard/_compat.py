"""What showing the dashboard needs of it beyond its public interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import optuna_dashboard._custom_plot_data as plots


@contextmanager
def cards_in_order(order: Mapping[str, int]) -> Iterator[None]:
    """Let the dashboard of this process show cards in an order; its own is that of a set, another at every start."""
    own = plots.list_graph_object_ids
    plots.list_graph_object_ids = lambda attributes: sorted(
        own(attributes), key=lambda name: (order.get(name, len(order)), name)
    )
    try:
        yield
    finally:
        plots.list_graph_object_ids = own
