"""CT files to volumes: read, check, clean, resample, store and make them."""
