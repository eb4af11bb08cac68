"""What models are prompted with: statements, judgements and instructions, from the shipped tables or the user's own files."""
