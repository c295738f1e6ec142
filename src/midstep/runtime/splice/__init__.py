"""Splicing: ranks that share a device keep parameters and optimizer state once, and make a step once.

``hook.install`` puts it under ``Optimizer.step``; ``seating.joined`` tells it which rank this is. Why it is
never wrong: docs/internals/splicing.md.
"""
