"""COMPUTE: one file per framework behind one contract, imported on first load."""

from servable.core.usage import withhold_usage_reports

withhold_usage_reports()  # before any framework is imported
