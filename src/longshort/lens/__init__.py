"""A fitted model and an input -> numbers, then one offline page."""
