"""The commands that work on cached features, as functions: classify, compare, audit, select.

join             labels, splits and cached features become X and y
missing          what a cache holds instead
feature_arrays   features larger than memory
rare_classes     classes left out at the user's wish
classify         train and compare heads, write the run
attempts         what is asked for, and its outcomes
kept_heads       finished heads, to go on from
failures         why a head failed
results          results.json and the other files
transfer         features against raw pixels
few_shot         curves of few labels
leaks            test images in train, at a glance
leakage          what they can change
audit            copies, leaks, doubtful labels, outliers
audit_document   audit.json, its rows and tables
copies           images that are the same
compare          several runs in one table
backbone_choice  which backbone to extract with
cache_export     features as one ordinary file
"""
