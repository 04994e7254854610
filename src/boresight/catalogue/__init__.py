"""The catalogue: every paper's row, joined with the objective that implements it and the verdict on its claim.

from boresight.catalogue import methods, show
methods("noisy labels", state="implemented")    # ranked entries
show("dpo").to_dict()                           # one entry, with its signature and defaults
"""

from boresight.catalogue.index import FAMILIES, STATES, Entry, methods, show
from boresight.catalogue.rows import rows

__all__ = ["FAMILIES", "STATES", "Entry", "methods", "rows", "show"]
