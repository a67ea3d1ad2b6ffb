"""Small, standard localizers on frozen features: linear probes, grouped heads, a detector."""
