"""Benchmarks: featurecache and other tools for the same work, in one process run.

extract     `bench extract`
passes      featurecache's passes over images
rivals      the other tools
inputs      photographs and weights for it
heads       `bench heads`
classify    `bench classify`: seconds and memory
finetune    `bench finetune`
starts      `bench starts`
warm        `bench warm`
opening     its part on opening a large cache
pipeline    `bench pipeline`
gpu         `bench gpu`
rerun       `bench rerun`: heads on features that are there
quick       `bench quick`: commands for one image
serve       `bench serve`
output      seconds of calls; printing and writing of figures
demo_data   the data sets of `make data`

head_comparisons  what `bench heads` compares
serving           the services and the client of `bench serve`
"""
