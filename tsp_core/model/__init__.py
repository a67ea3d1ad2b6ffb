"""Encoders, heads, losses, weights and checkpoints."""
