"""A study: the pipeline run several times with changes and seeds, and the comparison."""
