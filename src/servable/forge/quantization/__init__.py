"""Smaller numbers: the steps, and what their functions are made of."""
