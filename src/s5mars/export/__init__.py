"""Share models: ONNX files, and repositories on the hub."""
