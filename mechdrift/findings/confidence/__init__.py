"""Confidence: entropy neurons, entropy and calibration."""
