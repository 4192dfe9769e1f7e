"""`python -m gcaudit` is `gcaudit`."""

from gcaudit.cli import main

if __name__ == "__main__":
    main()
