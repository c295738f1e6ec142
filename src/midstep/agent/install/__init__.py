"""CRIU on this machine: which one there is, and how a newer one comes here from signed packages."""
