"""Eight candidates under load: six that should be stopped, each by its lane, and two that should be promoted."""
