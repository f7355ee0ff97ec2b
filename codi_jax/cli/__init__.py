"""The command line: how commands start, and flags of dataclasses."""
