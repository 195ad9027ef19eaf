"""Single values of metrics, for those who ask for them by name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def first_value(registry: CollectorRegistry, name: str) -> int:
    """Return the first series of a metric, 0 if there is none.

    A counter may be asked for with and without the ``_total`` at its end.
    """
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in {name, f"{name}_total"}:
                return int(sample.value)
    return 0
