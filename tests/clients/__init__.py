"""Clients of the house beside ptychography: they keep it from being shaped by one."""
