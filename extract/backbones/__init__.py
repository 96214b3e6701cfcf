"""Backbones: pretrained networks without their last layer, loaded with their transform.

registry        load_backbone
listing         list_backbones, without importing a library of networks
architectures   every family and how it is built
pixels          the image itself, as a baseline
weights         named weights, pip packages and files of the user
named_file      FILE or FILE#PART, the values of `--weights` that are files
tensor_files    tensors of untrusted files
plain_classes   settings and metrics that untrusted files hold next to tensors
fitting         the tensors of one network among those of a file
pooling         feature map to vector
cutting         a network cut at one layer or several
freezing        a network split in two: a frozen lower part, a trained upper part
graph           paths through a network's graph, and dominators
own_classifier  the pretrained classifier, applied to cached features
"""
