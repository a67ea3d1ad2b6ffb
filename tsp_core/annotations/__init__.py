"""Temporal annotations: one reader per dataset format, background cutting, the ground truth.

Each format is one module with one function `read(uri, subset)`, named in
`tsp_core.annotations.registry.FORMATS`; a new format is a file and a line there.
"""
