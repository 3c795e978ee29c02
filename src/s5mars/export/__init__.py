"""Models out: ONNX files for other machines, and repositories of a model hub."""
