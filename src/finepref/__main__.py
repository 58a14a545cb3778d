"""`python -m finepref`, also the entry of `torchrun -m finepref`."""

from finepref.cli.main import main

if __name__ == "__main__":
    main()
