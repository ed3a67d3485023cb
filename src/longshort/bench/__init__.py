"""This machine's speed: ours beside its peers, measured in turns."""
