"""How models are run: sites, recordings, and the store that keeps them."""
