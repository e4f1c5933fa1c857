"""The nouns. Standard library only; everything frozen; times in integer milliseconds, weights in integer
basis points (10,000 is all traffic)."""
