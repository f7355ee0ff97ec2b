"""The training step, its state and optimiser, and the loop around it."""
