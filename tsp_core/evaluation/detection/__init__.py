"""Temporal detection and proposal metrics, by the protocols of ActivityNet, THUMOS14 and DETAD."""
