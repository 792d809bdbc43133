"""The report: tables, charts, the HTML page, Markdown and the terminal."""
