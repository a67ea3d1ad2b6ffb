"""The Prefect flows, and the console command `tsp`."""
