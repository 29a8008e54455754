"""What the tree search knows beyond counts: a Gaussian process over whole paths, and a search for good ones.

`slots` turns trials into rows of numbers, `structure` learns which parameter follows which,
`kernel` compares paths, `priors` says what is likely before any trial, `likelihood` fits the kernel and `posterior`
uses it; `scale` bends rewards until they look normal; `belief` is all of that for one study, `planner` looks for the
path that is worth a trial, and `guide` brings them together for the sampler.
"""
