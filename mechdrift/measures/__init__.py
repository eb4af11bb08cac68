"""What is claimed: each module is one finding's mathematics, from recordings to Drifts. Nothing here knows pytest."""
