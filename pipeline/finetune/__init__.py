"""Fine-tuning from the cache: the frozen part of a network runs once per image, what is above it every epoch.

    head of a run ─────────────────┐                                LP-FT, Kumar et al., ICLR 2022
                                   ▼
    image ─► lower part ─► map ─► upper part ─► vector ─► last layers ─► label
             (frozen)      │      (trained, smaller rates further down)
                           └── kept by the feature cache, one for every view of the image

plan         what is asked for
finetune     all of it, from a run to a run
recipe       how it is trained: every number with its reason
source_run   the run that is tuned on: its head, its splits, the features it was trained on
head_layers  its head as the last layers of a network, and back
network      the part that is trained, with its parameters by depth
maps         where the maps of a batch come from
map_store    which of them the cache keeps
training     the loop over steps and epochs
epochs       metrics of an epoch, and the order by which the best is chosen
assembly     the network, the maps and the loop put together
checkpoint   the state of a training on disk, to go on from
state_checks what such a state may be
write_run    the tuned network as a run like any other
"""
