"""`homeostat demo`: a scripted life of a model on a generated stream whose truth is known."""

from homeostat.demo.story import Line, Told, tell

__all__ = ["Line", "Told", "tell"]
