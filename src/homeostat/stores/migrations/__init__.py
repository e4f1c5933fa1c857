"""Revisions of the control state's tables, oldest first in versions/."""
