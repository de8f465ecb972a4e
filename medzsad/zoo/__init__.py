"""Named models: the catalogue, weights fetched, imported and kept, and detectors from them."""
