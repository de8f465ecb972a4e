"""Scans: files to volumes with geometry and modality, intensities to the range that detectors read."""
