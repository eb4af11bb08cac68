"""One reader for every file of the user's: statements, pairs, instructions and texts."""
