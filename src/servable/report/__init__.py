"""Reports: tables, plots and notices as plain values, written as text, Markdown, CSV or one HTML page."""
