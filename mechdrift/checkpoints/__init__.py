"""What is compared: from the words on the command line to a checkpoint that is whole, finite and fingerprinted."""
