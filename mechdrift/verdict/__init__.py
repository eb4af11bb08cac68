"""What is decided: limits from a profile, and one rule that turns a Drift into a verdict."""
