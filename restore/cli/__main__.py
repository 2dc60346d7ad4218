"""`python -m restore.cli`."""

from restore.cli.main import main

if __name__ == "__main__":
    main()
