"""The compiled core: NumPy arrays in, arrays out; no torch."""
