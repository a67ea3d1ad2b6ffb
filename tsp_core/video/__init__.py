"""Raw videos: probing, sampling, decoding, transforms, data sets of clips."""
