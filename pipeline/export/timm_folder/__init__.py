"""A linear head and its network as a folder of timm: config.json, model.safetensors and a model card.

timm, transformers and the hub load such a folder without featurecache. The head becomes timm's classifier.

export      the folder, compared with `predict` before it is there
network     the network of timm with the tensors of ours, and the head as its last layer
config      config.json: the architecture, its arguments, the classes and the transform
card        README.md: the model card, with test accuracies and their intervals
agreement   labels by our pixels and by timm's own transform
"""
