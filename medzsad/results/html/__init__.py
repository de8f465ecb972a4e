"""The report of a scan as a page, and the page that leads to several."""
