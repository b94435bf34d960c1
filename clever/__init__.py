"""Contrastive Learning Via Equivariant Representation: the paper's tables from declarative experiments."""

__version__ = "0.1.0"
