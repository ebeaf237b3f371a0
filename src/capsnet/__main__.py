"""`python -m capsnet`: the same commands as `capsnet`."""

from capsnet.cli import main

main()
