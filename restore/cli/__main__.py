"""`python -m restore.cli`."""

from restore.cli import main

if __name__ == "__main__":
    main()
