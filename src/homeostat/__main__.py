"""`python -m homeostat`."""

from homeostat.cli import main

main()
