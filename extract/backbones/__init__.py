"""Backbones: pretrained networks without their last layer, loaded with their transform.

registry        load_backbone
listing         list_backbones, without importing a library of networks
architectures   every family and how it is built
pixels          the image itself, as a baseline
weights         where tensors come from
tensor_files    reading files of tensors that may be hostile
pooling         feature map to vector
cutting         where a network is cut, at one layer or several
freezing        a network in two: kept below, trained above
graph           ways through a network's graph
own_classifier  the last layer of its own, put back on features
"""
