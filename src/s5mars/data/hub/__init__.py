"""Public data sets from the Hugging Face hub, as folders that ``open_dataset`` reads."""

from s5mars.data.hub.fetching import fetch
from s5mars.data.hub.sources import SOURCES, Source

__all__ = ["SOURCES", "Source", "fetch"]
