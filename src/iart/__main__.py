"""python -m iart."""

from iart.cli import main

if __name__ == "__main__":
    main()
