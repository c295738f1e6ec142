"""Snapshots in a repository: committed whole by one object, the manifest, and collected when nobody needs
them. See README.md."""
