"""Reports: what a run found out, as pages and pictures for people.

In: the JSON and CSV files that stages write. Out: Markdown pages for the Prefect UI, and HTML pages that need neither a
server nor a network. No number is computed here.
"""
