"""From a case to the grid that the network works on and back, and the cache of preprocessed cases."""
