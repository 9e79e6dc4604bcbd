"""The parts of fork_backend: where things lie, the upstream archive, the patches, the placed tree, export and check."""
