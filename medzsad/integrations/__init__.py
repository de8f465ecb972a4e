"""Bridges to other software: MONAI Label. Nothing below imports from here."""
