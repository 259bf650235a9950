"""`python -m saebench` is the same program as `saebench`."""

from __future__ import annotations

from saebench.cli import main

if __name__ == "__main__":
    main()
