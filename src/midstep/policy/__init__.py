"""Fleet picture -> plan, with reasons. Pure. See README.md."""
