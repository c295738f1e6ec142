"""Policies to compare with, each in one small file, as published."""
