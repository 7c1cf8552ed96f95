"""`python -m kernelnotes.cli`, where the command is not in the PATH."""

from kernelnotes.cli import main

main()
