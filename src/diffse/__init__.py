"""diffse: diffusion-based speech enhancement, trained, run and compared as one validated pipeline."""

__version__ = "0.1.0"
