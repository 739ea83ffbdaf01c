"""Synthetic EM volumes with exact instance truth."""

from pipeline.phantom.render import LAYERS, PhantomBlock, render
from pipeline.phantom.spec import PhantomSpec

__all__ = ["LAYERS", "PhantomBlock", "PhantomSpec", "render"]
