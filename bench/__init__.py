"""Measurements, side by side with the peer and the limit in one run. Quote ratios: machines are noisy."""
