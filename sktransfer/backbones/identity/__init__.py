"""What a network and its preparation are known by: fingerprints, and the code that they run."""
