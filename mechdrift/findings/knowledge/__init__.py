"""Knowledge: where it is stored, and whether its representations transfer."""
