"""The seven stages; see `tsp_core.stages.base`."""
