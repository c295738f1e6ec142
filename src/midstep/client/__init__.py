"""The Python client. `fleet.FleetClient` is its door; it is imported where it is used, because that takes
time."""
