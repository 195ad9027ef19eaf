"""Artifacts of one model, and one model in every framework, side by side."""
