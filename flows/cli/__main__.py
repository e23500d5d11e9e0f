"""`python -m flows.cli`: the command `regraft` with the code of the folder that it is called in."""

from flows.cli import main

main()
