"""`python -m app.cli`, for the processes that `dialtone dev` starts."""

from app.cli import main

main()
