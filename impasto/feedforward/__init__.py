"""A painting in one pass of a transformation net, whose normalisations hold the style."""
