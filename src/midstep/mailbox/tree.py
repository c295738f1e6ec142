"""The canonical reduction's tree (docs/internals/canonical-reduction.md). Standard library only."""

from __future__ import annotations


def split(low: int, high: int) -> int:
    """Where the range of ranks from ``low`` to below ``high`` divides: at the largest power of two below its
    length."""
    return low + (1 << ((high - low - 1).bit_length() - 1))
