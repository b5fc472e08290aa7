"""Meta-Sim2: unsupervised learning of scene structure and parameters for synthetic data generation."""

__version__ = "0.1.0"
