"""Maps of a split, outcomes of each image at every threshold, and the numbers looked up from them."""
