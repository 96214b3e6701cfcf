"""Models by name: data/models/NAME holds versions, each a small run folder with one head.

places     folders, names, the record of the current version; a run by its folder or a model by its name
versions   what is known of a version, all models, what differs between two versions
promotion  a head of a run as the next version, and back to the version before
"""
