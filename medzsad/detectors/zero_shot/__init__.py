"""Detectors without any training: plain CLIP and WinCLIP."""
