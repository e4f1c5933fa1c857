"""`homeostat demo`: a scripted life of a model on a generated stream whose truth is known."""

from homeostat.demo.story import Told, tell
from homeostat.demo.telling import Line

__all__ = ["Line", "Told", "tell"]
