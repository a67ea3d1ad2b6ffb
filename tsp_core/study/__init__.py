"""A study: the pipeline run several times with changes and seeds, and what the runs say together."""
