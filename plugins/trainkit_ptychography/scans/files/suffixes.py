"""Endings of files that can hold a single array: what both settings and readers need."""

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".cxi", ".nxs")
