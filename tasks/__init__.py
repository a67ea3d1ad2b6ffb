"""The stages as Prefect tasks: name, retries, timeout, tags, progress, and nothing else."""
