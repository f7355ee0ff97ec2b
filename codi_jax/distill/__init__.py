"""The losses, one a file: pure functions of `predict` callables."""
