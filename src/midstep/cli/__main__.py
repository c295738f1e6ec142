"""`python -m midstep.cli`."""

from midstep.cli.main import app

app()
