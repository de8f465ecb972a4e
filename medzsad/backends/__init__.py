"""Detectors as graphs: their image side in ONNX, run by OpenVINO or ONNX Runtime instead of PyTorch."""
