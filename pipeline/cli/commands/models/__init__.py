"""Models by name.

promote  a head of a run as the next version of a model, and back to the version before
models   all models and their versions
text     a version as a line and as a row of a table
"""
