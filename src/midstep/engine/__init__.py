"""(record, event) -> (record, effects): the life of a job. Pure. See README.md."""
