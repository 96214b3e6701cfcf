"""Backbones: pretrained networks without their last layer, loaded with their transform.

names           what a name says of the library that its network is from
registry        load_backbone
listing         list_backbones, without importing a library of networks
architectures   every family and how it is built
pixels          the image itself, as a baseline
weights         named weights, pip packages and files of the user
weights_source  WeightsSource: where weights are, and their transform
libraries/      networks of timm, of the Hugging Face hub, of Keras and of the user
named_file      FILE or FILE#PART, the values of `--weights` that are files
tensor_files    tensors of untrusted files
plain_classes   settings and metrics that untrusted files hold next to tensors
fitting         the tensors of one network among those of a file
pooling         feature map to vector
cuts            what a cut of a network is
cutting         a network cut at one layer or several
whole_networks  the same of networks that are run as they are
freezing        a network split in two: a frozen lower part, a trained upper part
graph           paths through a network's graph, and dominators
own_classifier  the pretrained classifier, applied to cached features
"""
