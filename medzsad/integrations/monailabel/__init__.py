"""The MONAI Label app: anomaly maps as pre-labels in 3D Slicer and OHIF, and adapters that learn from labels.

What a MONAI Label server loads is :mod:`medzsad.integrations.monailabel.app`. Importing this package imports
neither MONAI Label nor torch.
"""
