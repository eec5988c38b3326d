"""Tests mirror the floors; system/ runs whole processes."""
