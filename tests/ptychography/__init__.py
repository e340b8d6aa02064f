"""Tests of trainkit_ptychography."""
