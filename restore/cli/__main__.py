"""`python -m restore.cli`."""

from restore.cli.main import run

if __name__ == "__main__":
    run()
