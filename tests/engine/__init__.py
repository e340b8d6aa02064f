"""Tests of the loop, and of runs that are stopped and gone on with."""
