"""`mechdrift COMMAND`: one module a command; `cli.py` reads the command line."""
