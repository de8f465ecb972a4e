"""Bridges to other software: MONAI Label, and a server of our own. Nothing below imports from here."""
