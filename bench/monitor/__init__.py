"""How good and how fast drift is found."""
