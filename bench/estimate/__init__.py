"""How far estimated metrics are from what labels say: `python -m bench.estimate FOLDER`."""
