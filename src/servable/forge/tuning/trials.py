"""What tuning tries: each form of a model, on each engine that reads it, with threads and streams. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from servable.engines.base import ENGINES, Artifact, engine_class
from servable.engines.tuned_plan import Form as FormRecord
from servable.engines.tuned_plan import Setting
from servable.forge.quantization.steps import BRAIN
from servable.forge.verify import EXACT, INT8, Tolerance

TOLERANCES: Final = {
    "f32": EXACT,
    "bf16": replace(BRAIN, agreement=0.99),
    "int8": replace(INT8, relative=0.3, agreement=0.97),
}
"""What reduced precision may cost where it was asked for; bf16 as much as the step that stores it is allowed."""
MADE_UP: Final = {"bf16": Tolerance(rtol=None, atol=None, relative=0.5, cosine=0.95)}
"""Rows from nowhere may lie where a network is ill-conditioned: of pixels between -1 and 1, from which it takes means
of a hundred, eight bits leave next to nothing, and answers say more of the rows than of the arithmetic."""
COMPUTES: Final = {"openvino": ("f32", "bf16"), "torch": ("f32", "bf16")}
"""Engine -> the precisions that it computes an f32 artifact in; the others know f32 alone."""
POOLS: Final = frozenset({"onnxruntime", "tensorflow"})
"""Engines that can run independent operations beside each other."""
STREAMS: Final = frozenset({"onnxruntime", "openvino", "tensorflow"})
"""Engines that compute several batches at once."""


@dataclass(frozen=True, slots=True)
class Form:
    """An artifact that may run in the model's place. ``made`` says how it was made; "": it is the model itself."""

    artifact: Artifact
    made: str = ""
    precision: str = "f32"
    fingerprint: str = ""

    def record(self) -> FormRecord:
        """Return it as a plan names it."""
        path = str(self.artifact.path) if self.made else ""
        return FormRecord(self.artifact.kind, path, self.fingerprint, self.made)


@dataclass(frozen=True, slots=True)
class Trial:
    """One form under one setting; ``form`` counts in the list of forms."""

    form: int
    setting: Setting
    precision: str = "f32"

    def __str__(self) -> str:
        """Return it for people, with the precision of what is computed."""
        return str(msgspec.structs.replace(self.setting, precision=self.precision))


def tolerance_of(precision: str, *, made_up: bool, most: float | None = None) -> Tolerance:
    """Return how far answers may be off; ``most`` bounds reduced precision by the largest value.

    On inputs that were made up the largest of some scores is chance: there the top class is not judged.
    """
    found = TOLERANCES[precision]
    if precision == "f32":
        return found
    if made_up:
        found = MADE_UP.get(precision, replace(found, agreement=None))
    return found if most is None else replace(found, relative=most)


def first_trials(forms: Sequence[Form], precisions: Collection[str], engines: Collection[str] = ()) -> list[Trial]:
    """Return each form on each engine that reads it and is installed, at each precision, with the engine's threads."""
    found = []
    for number, form in enumerate(forms):
        for engine in ENGINES:
            if (engines and engine not in engines) or engine == "python" or form.artifact.kind not in _kinds(engine):
                continue
            if form.precision != "f32":
                found.append(Trial(number, Setting(engine), form.precision))
                continue
            computed = [one for one in COMPUTES.get(engine, ("f32",)) if one in precisions]
            found += [Trial(number, Setting(engine, one), one) for one in computed]
    return found


def variants(trial: Trial, cpus: int) -> list[Trial]:
    """Return the same with other numbers of threads and streams, as far as they make a difference on so many CPUs."""
    if cpus < 2:
        return []
    engine = trial.setting.engine
    changes: list[dict[str, int]] = [{"intra_op_threads": 1}]
    if engine in STREAMS:
        changes.insert(0, {"streams": cpus})
        if cpus >= 4:
            changes.append({"streams": cpus // 2})
    if cpus >= 4:
        changes.append({"intra_op_threads": cpus // 2})
    if engine in POOLS:
        changes.append({"inter_op_threads": min(cpus, 4)})
    return [Trial(trial.form, msgspec.structs.replace(trial.setting, **change), trial.precision) for change in changes]


def _kinds(engine: str) -> frozenset[str]:
    found = engine_class(engine)
    return found.kinds if found.installed() else frozenset()
