"""A painting in one pass of a transformation net, whose normalisations hold the style."""

STEPS = 200  # in which a style is learned
