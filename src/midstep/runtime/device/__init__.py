"""Ranks that share a GPU exchange tensors in its memory, not through the host's."""
