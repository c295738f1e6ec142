"""A raw snapshot's folders as trees in a repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from midstep.vault.archive.trees import Kind, Tree, store_tree
from midstep.vault.errors import SnapshotIncomplete
from midstep.vault.faults import pass_point
from midstep.vault.parts import Manifest
from midstep.vault.store.repository import Writer


def store_trees(folder: Path, manifest: Manifest, writer: Writer) -> dict[str, Tree]:
    """Exactly the files that the parts name: what CRIU puts beside them later is not of the snapshot.
    SnapshotIncomplete: one of them is not there, or not as long as it should be."""
    files = {name: size for part in manifest.parts for name, size in part.files.items()}
    trees: dict[str, Tree] = {}
    for name in manifest.trees:
        if (folder / name).is_dir():  # a rank that had ended has no image
            wanted = _named(files, name)
            trees[name] = store_tree(folder / name, writer.add_files, wanted.__contains__)
            pass_point("store:midway")
    found = {f"{name}/{path}": size for name, tree in trees.items() for path, size in _sizes(tree).items()}
    for name, size in files.items():
        if found.get(name) != size:
            there = f"has {found[name]} bytes instead of {size}" if name in found else "is not there"
            raise SnapshotIncomplete(
                f"{folder / name} {there}: snapshot {manifest.snapshot_id} is not archived"
            )
    return trees


def _named(files: Mapping[str, int], tree: str) -> set[str]:
    return {path.partition("/")[2] for path in files if path.startswith(f"{tree}/")}


def _sizes(tree: Tree) -> dict[str, int]:
    """Path -> bytes, of every name that a file has."""
    sizes = {entry.path: entry.content.size for entry in tree if entry.content}
    hard = {
        entry.path: sizes[entry.target] for entry in tree if entry.kind is Kind.HARD and entry.target in sizes
    }
    return {**sizes, **hard}
