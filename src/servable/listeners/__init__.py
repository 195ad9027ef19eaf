"""ROUTES: from a request head to the code that answers it."""
