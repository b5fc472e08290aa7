"""Built-in worlds: each package has a declaration, a grammar, priors and a renderer."""

from ms2.worlds import aerial2d, driving3d, multimnist

__all__ = ["aerial2d", "driving3d", "multimnist"]
