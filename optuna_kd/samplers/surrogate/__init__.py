"""What the tree search knows beyond counts: a Gaussian process over whole paths, and a search for good ones.

`slots` turns trials into rows of numbers, `structure` learns which parameter follows which,
`gaussian_process` compares paths, `belief` fits it to a study, `planner` looks for the path that is worth a trial,
and `guide` brings them together for the sampler.
"""
