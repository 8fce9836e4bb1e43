"""Stands in for Trygon when one of our serve programs is run on Ray Serve for comparison."""

from __future__ import annotations

from ray import serve

__all__ = ["serve"]
