"""`python -m app.cli`, which `dialtone dev` uses to start its processes."""

from app.cli import main

main()
