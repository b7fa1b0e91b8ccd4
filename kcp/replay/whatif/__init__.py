"""What another scheduler, or other machines, would have made of the same arrivals.

`arrivals` reads a log into what came from outside, `world` lets a scheduler decide about it, `measures` watches how full the
nodes get, `machines` changes which nodes there are, `comparison` runs two of them side by side and says where they part.
Controllers do not take part here.
"""
