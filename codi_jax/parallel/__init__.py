"""The device mesh, and where batches and parameters lie on it."""
