"""DICOM files, folders and servers to scans."""
