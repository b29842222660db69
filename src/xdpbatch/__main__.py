"""`python -m xdpbatch` is the command `xdpbatch`."""

from xdpbatch.cli import main

if __name__ == "__main__":
    main()
