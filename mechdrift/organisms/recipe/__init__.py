"""How the shipped organisms were made: `python -m mechdrift.organisms.recipe --out FOLDER`."""
