"""Networks of other libraries, whose packages are extras: imported only where a name asks for one.

hub             files of the Hugging Face hub: its cache, commits and downloads
definitions     what a name depends on besides its weights file, without importing anything
timm_networks   configurations of timm, and the networks that it builds
timm_mismatch   the first tensor that differs between a network and its file
own_network     networks of the user, by the name of a function
own_source      the source text that they depend on
timm_transform  timm's data config as a TransformSpec
timm_listing    the names of timm's networks, and which are on this machine
sources         where the weights are
loading         networks with their tensors

keras_names       the applications of Keras, without importing it
keras_layers      layers of Keras as modules of torch
keras_conversion  which module a layer becomes, and where its variables go
keras_networks    networks that Keras builds, rebuilt from these modules
keras_files       tensors of untrusted files of Keras
keras_sources     where the weights are, and their download by Keras
keras_loading     networks with their tensors
"""
