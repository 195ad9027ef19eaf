"""Signatures beside a format that has no names for them: ONNX and OpenVINO hold one, which is the default one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.signature_settings import write_signature_settings


def state_names(signature: Signature, target: Path, names: Iterable[str]) -> None:
    """Write into ``servable.toml`` that the signature has these names too, in place of what a source said there."""
    inputs = {name: replace(spec, node="") for name, spec in signature.inputs.items()}
    outputs = {name: replace(spec, node="") for name, spec in signature.outputs.items()}
    others = [name for name in dict.fromkeys(names) if name != DEFAULT_SIGNATURE]
    stated = {name: Signature(name, inputs, outputs, signature.method_name) for name in others}
    settings = target / SETTINGS_FILE
    if stated or settings.is_file():
        write_signature_settings(settings, stated)
