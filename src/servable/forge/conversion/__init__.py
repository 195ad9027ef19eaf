"""From one format to another, and the folding of what is constant: steps, and what their functions are made of."""
