"""Tests of trainkit_segmentation."""
