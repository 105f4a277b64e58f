"""`python -m kinema` is the command `kinema`."""

from kinema.cli import main

main()
