"""Steps in a row over one model, what was done before, and the report."""
