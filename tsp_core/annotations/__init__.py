"""Readers of annotation formats, and the segments cut from them."""
