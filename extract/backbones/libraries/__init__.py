"""Networks of other libraries, whose packages are extras: imported only where a name asks for one.

hub             files of the Hugging Face hub: its cache, commits and downloads
definitions     what a name depends on besides its weights file, without importing anything
timm_networks   configurations of timm, and the networks that it builds
timm_transform  timm's data config as a TransformSpec
timm_listing    the names of timm's networks, and which are on this machine
sources         where the weights are
loading         networks with their tensors
"""
