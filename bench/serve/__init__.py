"""Serving one LightGBM model: ours, peers, and the limit of our own HTTP stack. `python -m bench.serve --help`."""
