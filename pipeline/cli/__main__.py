"""`python -m pipeline.cli`: the same as the command `sam4em`."""

from pipeline.cli.main import entry_point

entry_point()
