"""``python -m trainkit`` is ``trainkit``."""

from trainkit.cli import main

if __name__ == "__main__":
    main()
