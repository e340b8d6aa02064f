"""Makes a report on one run: a page of HTML that needs no other file and no network."""
