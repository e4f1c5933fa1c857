"""The only place that names concrete backends. `plane` is what a data plane needs and no more: it starts in less time
and memory than the whole `system`."""

STATE = ".homeostat"
"""The folder of a project that holds its state."""
