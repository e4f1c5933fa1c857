"""What leaves the project: one package a target, which renders files and nothing else."""
