"""A long, seeded ordeal for real clusters, and the proof afterwards that every promise held: `make soak`."""
