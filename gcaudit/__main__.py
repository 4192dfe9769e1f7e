"""`python -m gcaudit` is `gcaudit`."""

from gcaudit.cli import program

if __name__ == "__main__":
    program()
