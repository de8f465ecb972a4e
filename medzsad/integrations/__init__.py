"""Bridges to other software: MONAI Label, BIDS, and a server of our own. Nothing below imports from here."""
