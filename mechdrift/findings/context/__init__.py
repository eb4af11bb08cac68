"""Context: how far the model sees."""
