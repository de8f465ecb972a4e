"""Results as DICOM objects: segmentation, parametric map, structured report, secondary capture."""
