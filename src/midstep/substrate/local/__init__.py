"""The embedded fleet: several virtual nodes on this machine. README.md is the map."""
