"""Reports: typed views in, self-contained HTML out. No network, no script; light and dark."""
