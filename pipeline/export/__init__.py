"""A run's head as one file for other programs, which need neither this package nor torch.

    image -> pixels (resizing) -> features (networks) -> probabilities (heads)       put together by assembly

export         export_model: a run to a file or folder that agrees with `predict`
formats        the formats of an export
request        what is exported, and what it is compared on
onnx_file      one ONNX file from pixels to probabilities
saved_heads    the heads of a predictor, and their networks
networks       the graph of a network for one image
resizing       resizing and cropping as a graph, to the pixels of `fit_pixels`
nodes          a graph that is being built
assembly       one model of transforms, networks and heads
metadata       what a file says of itself
exported_file  a file as ONNX Runtime runs it
parity         how far a file agrees with `predict`, and the first stage that differs
references     what `predict` says of images
odd_images     files that programs read differently
differences    what a difference of pixels looks like
heads          fitted heads as graphs
timm_folder    a linear head and its network as a folder of timm
torch_program  a head and its network as a program of torch.export
torch_heads    fitted heads as modules of torch
"""
