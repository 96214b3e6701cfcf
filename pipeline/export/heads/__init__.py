"""Fitted heads as ONNX graphs of standard operators: features in, probabilities out.

Each graph has the arithmetic of `classify.heads.fitted`, in the same precision, so that its answers are those of
`predict_both` and, tempered, of `classify.evaluation.calibration.temper_head`.

graph        one head as a model
softmax      from scores and probabilities to tempered probabilities
linear       linear, quadratic and two-layer heads
kernel       the RBF kernel and pairwise coupling
neighbours   k nearest neighbours
sklearn      classifiers of scikit-learn, by skl2onnx
"""
