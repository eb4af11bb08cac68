"""What is done with weights alone: matrices read and decomposed, directions projected out."""
