"""Bridges to other software: MONAI Label, MONAI bundles, ONNX. Nothing below imports from here."""
