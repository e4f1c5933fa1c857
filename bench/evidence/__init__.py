"""How often the rules of a release are wrong, and how soon they are right: `python -m bench.evidence`."""
