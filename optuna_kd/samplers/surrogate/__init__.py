"""What the tree search knows beyond counts: a Gaussian process over whole paths, and a search for good ones.

`slots` turns trials into rows of numbers, `structure` learns which parameter follows which, `kernel` and
`process` are the Gaussian process, `planner` looks for the path that is worth a trial.
"""
