"""Ablations: variants of one training over several seeds, and the table that compares them."""
