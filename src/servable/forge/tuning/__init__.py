"""How a model runs fastest here: what is tried, what is measured, what is chosen, and the plan of it."""
