"""Tests of trainkit_schedulers."""
