"""The flash-attn package by attend, under its own name: for its suite and for models that import it."""
from attend.flash_attn import *  # noqa: F403
from attend.flash_attn import __all__  # noqa: F401

__version__ = "2.8.3"  # whose interface this is
