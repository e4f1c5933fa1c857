"""What a project can be asked from Python, beyond the project itself."""
