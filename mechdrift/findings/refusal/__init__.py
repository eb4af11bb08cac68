"""Refusal: replies, and the direction that refusal lies in."""
