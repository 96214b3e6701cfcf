"""Fine-tuning from the cache: the frozen part of a network runs once per image, what is above it every epoch.

    head of a run ─────────────────┐                                LP-FT, Kumar et al., ICLR 2022
                                   ▼
    image ─► lower part ─► map ─► upper part ─► vector ─► last layers ─► label
             (frozen)      │      (trained, smaller rates further down)
                           └── kept by the feature cache, one for every view of the image

recipe.py      how it is trained: every number with its reason
start.py       the head of a run as the last layers of a network, and back
network.py     the part that is trained, with its parameters by depth
maps.py, supply.py
               where the maps of a batch come from: the cache, or the images anew; which of them
training.py    the loop
epochs.py      what each pass came to, by val
checkpoint.py  what survives a kill
plan.py, command.py, beginning.py, story.py, outcome.py
               what was asked for, and all of it from a run folder to another, which is like any other
"""
