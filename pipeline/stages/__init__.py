"""The stages of a run: each reads, calls and writes for one task at a time."""
