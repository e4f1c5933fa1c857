"""The control API, and the process that runs it."""
