"""Reports: what a run found out, as pages and pictures for people.

In: the JSON and CSV files that stages write. Out: Markdown pages for the Prefect UI, and HTML pages that need neither a
server nor a network. No number is computed here.
"""

from regraft.rooms import open_door

__getattr__, __dir__, __all__ = open_door(__name__, __file__)
