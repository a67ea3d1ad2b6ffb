"""The demo data set: drawn, encoded and annotated by this package."""

from tsp_core.demo.dataset import make_demo

__all__ = ["make_demo"]
