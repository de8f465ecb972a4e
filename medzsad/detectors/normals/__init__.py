"""Deviation from a handful of normal images: a profile of their patches, and how far others are from it."""
