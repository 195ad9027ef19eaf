"""Smaller networks that answer differently, by design, and by how much: pruned, clustered, factorized, taught, binary.

One form goes in and comes out: an ONNX graph. What needs training trains that very graph (``training``).
"""
