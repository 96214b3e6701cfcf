"""The commands that work on cached features, as functions: classify, compare, audit, select.

join             labels, splits and cached features become X and y
rare_classes     classes left out at the user's wish
classify         train and compare heads, write the run
classify_plan    what is to be trained, and the outcomes
kept_heads       finished heads, to go on from
failures         why a head failed
results          results.json and the other files
finite_numbers   results without NaN
transfer         features against raw pixels
ensemble         the mean of the heads tied on val
few_shot         curves of few labels
leak_check       test images that are in train, by a quick check
leak_effect      what these change in the test accuracy
audit            copies, leaks, doubtful labels, outliers
audit_document   audit.json, its rows and tables
copies           images that are the same
compare          several runs in one table
backbone_choice  which backbone to extract with
cache_export     features as one ordinary file
"""
