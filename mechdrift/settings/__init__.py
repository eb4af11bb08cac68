"""What a run was given. An option is declared in `declared.py`, once, and everything else about it is derived."""

from mechdrift.settings.declared import OPTIONS as OPTIONS
from mechdrift.settings.declared import Settings as Settings
