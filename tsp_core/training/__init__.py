"""The pretraining loop: samplers, schedule, processes, metrics."""
