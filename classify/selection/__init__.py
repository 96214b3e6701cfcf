"""Selection: splits by content, held-out rounds, and the choice of a setting.

splits    train, val and test; folds
dividing  units sent to sides
holdouts  rounds of a sweep
settings  grids of settings, with values that a user gives
tally     outcomes joined over rounds
fallen    the end of a climb through strengths
sweep     choose on val, refit, never see test
few_shot  few labels per class
"""
