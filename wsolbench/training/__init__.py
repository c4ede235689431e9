"""From batches to trained weights: the loop, its steps, its optimizer, what it leaves behind."""
