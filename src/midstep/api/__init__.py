"""HTTP: see `wire/api.py` for the contract."""
