"""Tests of parameter groups: who trains when, at which rate, and how both go on."""
