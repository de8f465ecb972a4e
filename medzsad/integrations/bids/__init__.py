"""A BIDS app: the images of a BIDS data set in, BIDS derivatives out (docs/bids.md)."""
