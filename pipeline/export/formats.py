"""The formats of an export, by the words of `--format`."""

ONNX, TIMM, TORCH = FORMATS = ("onnx", "timm", "torch")
# Of the file that is written; timm's is a folder.
SUFFIXES = {ONNX: ".onnx", TORCH: ".pt2"}
