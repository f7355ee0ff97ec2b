"""CoDi: conditional diffusion distillation (Mei et al., CVPR 2024) in JAX."""

__version__ = "0.1.0"
