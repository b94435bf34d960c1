"""Contrastive Learning Via Equivariant Representation: the paper's tables from declarative experiments."""

from pathlib import Path

__version__ = "0.1.0"

if not (Path(__file__).parent / "reports").is_dir():
    # A checkout, where `reports/` and `experiments/` lie beside this folder: an installation moves them into it.
    __path__.append(str(Path(__file__).parents[1]))
