"""Features of whole videos: extraction, pooling, export formats."""
