"""Runs many cells: sweep -> cells -> launcher -> status, and the command line."""
