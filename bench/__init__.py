"""Benchmarks, soaks and attacks, each a program with ``python -m``."""
