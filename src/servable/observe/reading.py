"""Single values of metrics, for those who ask for them by TensorFlow's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def first_value(registry: CollectorRegistry, name: str) -> int:
    """Return the first series of a metric, 0 if there is none.

    ``name`` is in TensorFlow's form, ``/tensorflow/serving/request_count``, or in Prometheus'.
    """
    wanted = name.replace("/", ":")
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in {wanted, f"{wanted}_total"}:
                return int(sample.value)
    return 0
