"""Chunks, packs and indexes: content kept once."""
