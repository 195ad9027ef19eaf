"""Conversions between formats: the steps there are."""

from __future__ import annotations

from servable.forge.steps import Step

STEPS: tuple[Step, ...] = ()
