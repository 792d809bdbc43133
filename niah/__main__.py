"""`python -m niah COMMAND ...`: the command line."""

from niah.cli.main import main

if __name__ == "__main__":
    main()
