"""Where a model looks: maps of any words, their scores and pictures. The mathematics is the fork's."""

from swim.attention.maps import extract

__all__ = ["extract"]
