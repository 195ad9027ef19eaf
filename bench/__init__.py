"""Benchmarks as commands: ``python -m bench.run``, ``python -m bench.soak``, ``python bench/..._micro.py``."""
