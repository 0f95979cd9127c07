"""`python -m declai` is the `declai` command."""

from declai.cli import main

main()
