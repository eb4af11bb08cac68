"""pytest's side of a run: from its options to its rows, record and exit code."""
