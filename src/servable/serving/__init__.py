"""THE ONE REQUEST PATH: resolve, validate, batch, run, observe."""
