"""Runs the command from a checkout: `python cli.py run table3`."""

from clever.commands.app import main

if __name__ == "__main__":
    main()
