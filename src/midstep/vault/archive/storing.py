"""A raw snapshot's folders as trees in a repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from midstep.vault.archive.trees import Kind, Tree, filled, list_tree
from midstep.vault.errors import SnapshotIncomplete
from midstep.vault.faults import pass_point
from midstep.vault.parts import Manifest
from midstep.vault.store.content import Content
from midstep.vault.store.repository import Writer


def store_trees(
    folder: Path, manifest: Manifest, writer: Writer, before: Mapping[str, Tree]
) -> dict[str, Tree]:
    """Exactly the files that the parts name: what CRIU puts beside them later is not of the snapshot.
    ``before``: the trees of the job's last snapshot. SnapshotIncomplete: one of the files is not there, or
    not as long as it should be."""
    files = {name: size for part in manifest.parts for name, size in part.files.items()}
    listed = {
        name: list_tree(folder / name, _named(files, name).__contains__)
        for name in manifest.trees
        if (folder / name).is_dir()  # a rank that had ended has no image
    }
    paths = [(name, it.path) for name, tree in listed.items() for it in tree if it.kind is Kind.FILE]
    old = {(name, it.path): it.content for name, tree in before.items() for it in tree}
    added = writer.add_files([folder / name / path for name, path in paths], [old.get(it) for it in paths])
    pass_point("store:midway")
    contents: dict[str, dict[str, Content]] = {name: {} for name in listed}
    for (name, path), content in zip(paths, added, strict=True):
        contents[name][path] = content
    trees = {name: filled(tree, contents[name]) for name, tree in listed.items()}
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
