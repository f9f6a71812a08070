"""One visible training loop per stage."""

from fewview.training.run import train

__all__ = ["train"]
