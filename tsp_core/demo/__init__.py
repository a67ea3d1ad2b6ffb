"""The demo data set: drawn, encoded and annotated by this package."""
